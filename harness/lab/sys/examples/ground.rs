//! Brings the ground up in a sandbox and runs a command in it: `cargo run -p udn-lab-sys --example ground -- CMD…`.
//!
//! The command finds the tools of Open vSwitch and OVN in its `PATH`, the central's databases by `OVN_RUNDIR`, and each
//! node as a named network namespace (`ip netns exec ovn-worker …`). Without a command it prints the site and ends.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Instant;

use udn_lab_sys::error::Error;
use udn_lab_sys::ground::Ground;
use udn_lab_sys::packages::{self, Progress};
use udn_lab_sys::sandbox::{self, Sandbox, Spec, preflight};
use udn_lab_sys::site::Tools;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = sandbox::internal(&args) {
        return code;
    }
    let result = match args.get(1).and_then(|arg| arg.to_str()) {
        Some("__ground") => inside(&args[2..]),
        _ => outside(&args[1..]),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn outside(args: &[OsString]) -> Result<ExitCode, Error> {
    preflight::check()?;
    let packages = packages::ensure(&packages::default_folder(), &|progress| match progress {
        Progress::Fetching { number, of, bytes, name } => {
            eprintln!("fetching {} MB: {number}/{of} {name}", bytes / 1_000_000)
        }
        Progress::Unpacking { .. } => {}
        other => eprintln!("{other:?}"),
    })?;
    let host = packages.tools.root == std::path::Path::new("/");
    let mut main: Vec<OsString> = vec!["__ground".into(), if host { "/" } else { sandbox::TREE }.into()];
    main.extend_from_slice(args);
    let mut sandbox = Sandbox::spawn(&Spec { tree: packages.image_root, main }, None)?;
    loop {
        match sandbox.event() {
            Ok(event) => eprintln!("{event:?}"),
            Err(Error::Ended(message)) if message.contains("ended unexpectedly") => break,
            Err(error) => return Err(error),
        }
    }
    Ok(if sandbox.wait()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inside(args: &[OsString]) -> Result<ExitCode, Error> {
    let start = Instant::now();
    let runtime = tokio::runtime::Runtime::new().map_err(Error::sandbox("start its runtime"))?;
    let tools = Tools { root: args.first().map(Into::into).unwrap_or_default() };
    let ground =
        runtime.block_on(Ground::up(tools, &|step| eprintln!("[{:>5} ms] {step}", start.elapsed().as_millis())))?;
    let site = ground.site();
    let Some(program) = args.get(1) else {
        println!("{site:#?}\n{:#?}", ground.daemons());
        return Ok(ExitCode::SUCCESS);
    };
    let path = format!("{}/bin:{}", sandbox::FOLDER, std::env::var("PATH").unwrap_or_default());
    let status = Command::new(program).args(&args[2..]).env("PATH", path).env("OVN_RUNDIR", &site.ovn.run).status();
    let status = status.map_err(Error::sandbox(format!("run {}", program.to_string_lossy())))?;
    for problem in ground.health() {
        eprintln!("{problem}");
    }
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
