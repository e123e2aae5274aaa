//! User, groups, capabilities and limits of a container's process.

use std::io;

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use super::job::Program;

/// Gives up what the program shall not have.
pub(super) fn give_up(program: &Program) -> io::Result<()> {
    raise_open_files();
    let mut allowed = CapabilitySet::from_bits_truncate(program.capabilities);
    if program.capabilities != u64::MAX {
        for capability in CapabilitySet::all().difference(allowed).iter() {
            // Asking first: capabilities that this kernel does not know cannot be dropped.
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    if !become_user(program)? {
        allowed = CapabilitySet::empty();
    }
    let keeps_all = program.capabilities == u64::MAX && program.user == 0;
    if Uid::effective().is_root() && !keeps_all {
        let sets = CapabilitySets { effective: allowed, permitted: allowed, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets)?;
    }
    if program.no_new_privileges {
        set_no_new_privs(true)?;
    }
    Ok(())
}

/// Changes user and groups; `false` where the lab's own user namespace maps user 0 only, so that the process has to
/// stay user 0 and loses its capabilities instead.
fn become_user(program: &Program) -> io::Result<bool> {
    if program.user == 0 && program.group == 0 && program.groups.is_empty() {
        return Ok(true);
    }
    let groups: Vec<Gid> = program.groups.iter().copied().map(Gid::from_raw).collect();
    // Refused inside a user namespace made by an ordinary user; the groups do not exist there anyway.
    let _ = setgroups(&groups);
    let unmapped = |error: nix::Error| error == nix::Error::EINVAL;
    match setgid(Gid::from_raw(program.group)) {
        Err(error) if unmapped(error) => {}
        result => result?,
    }
    match setuid(Uid::from_raw(program.user)) {
        Err(error) if unmapped(error) => Ok(false),
        result => result.map(|()| true).map_err(io::Error::from),
    }
}

/// Container runtimes run with a high limit of open files; a shell's 1024 would bound the probes in flight.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
