//! A process that must not outlive the one that started it, however that ends.

use std::ffi::OsString;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// First argument of such a process; the second is its parent's number.
pub(crate) const TIED: &str = "__tied";

/// The arguments that mean it.
pub(crate) fn arguments() -> [String; 2] {
    [TIED.into(), std::process::id().to_string()]
}

/// The program's arguments without those, after tying it where they ask for it. `None`: the parent is gone already.
pub(crate) fn tie(mut args: Vec<OsString>) -> Option<Vec<OsString>> {
    if args.get(1).is_none_or(|first| first != TIED) {
        return Some(args);
    }
    let parent = args.get(2).and_then(|number| number.to_str()?.parse().ok()).and_then(Pid::from_raw);
    args.drain(1..args.len().min(3));
    // A parent that died before the request sends no signal; it is another process' child by then.
    let tied = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    (tied && parent.is_some() && getppid() == parent).then_some(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_tied_keeps_his_arguments() {
        let plain: Vec<OsString> = ["udn-conformance", "list"].map(OsString::from).into();
        assert_eq!(tie(plain.clone()), Some(plain));
    }
}
