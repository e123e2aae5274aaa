//! The program as a process of the lab.

use std::env::ArgsOs;
use std::ffi::OsString;
use std::process::ExitCode;

use udn_lab_sys::packages::courier;
use udn_lab_sys::sandbox;

use crate::host::relay;
use crate::inside;

/// First argument of the lab's main process; the second is how many listeners it is handed.
pub(crate) const MAIN: &str = "__lab-main";

/// Becomes a process of a lab when the arguments ask for one (their first word starts with `__`), else returns none. Call
/// it first of all in `main`, while the program has one thread. `tidy` is called every other second by the process that has the
/// API server and the controllers in it, to give memory back that nobody uses.
#[must_use]
pub fn internal(args: ArgsOs, tidy: fn()) -> Option<ExitCode> {
    let args: Vec<OsString> = args.collect();
    let beside = || courier::internal(&args).or_else(|| relay::internal(&args));
    if let Some(code) = sandbox::internal(&args).or_else(beside) {
        return Some(code);
    }
    match args.get(1)?.to_str()? {
        MAIN => Some(inside::main(args.get(2)?.to_str()?.parse().ok()?, tidy)),
        udn_lab_node::CONTAINER_COMMAND => Some(udn_lab_node::container_main(args.into_iter().skip(2))),
        _ => None,
    }
}
