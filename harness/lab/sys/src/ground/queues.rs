//! Room for packets that wait until the switch reads them.
//!
//! A switch in user space reads its uplink from a packet socket. Such a socket holds what `net.core.rmem_default` allows
//! (208 KiB), which is some 270 small packets: fewer than a round of probes sends, and what comes while the switch does
//! not get the processor, for 50 ms say, is lost. TCP sends those again after a second, and everything that measures
//! takes the loss for the network's. The switch has no setting for it, so the lab sets it from outside.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::io;
use rustix::net::{AddressFamily, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// What is asked for, bytes; some 20,000 small packets. The kernel takes none of it before packets wait.
const ROOM: usize = 16 << 20;

/// Gives the packet sockets that a process has now more room: as much as [`ROOM`], or as its user may have. How many they are.
///
/// # Errors
/// What the kernel says where the process cannot be looked into: it has ended, or belongs to somebody else.
pub(super) fn deepen(pid: u32) -> io::Result<usize> {
    let process = Pid::from_raw(pid.cast_signed()).ok_or(io::Errno::SRCH)?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    let mut deepened = 0;
    for number in descriptors(pid) {
        // It may be closed in the meantime.
        let Ok(file) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        if sockopt::socket_domain(&file).is_ok_and(|domain| domain == AddressFamily::PACKET) {
            room(&file)?;
            deepened += 1;
        }
    }
    Ok(deepened)
}

fn room(socket: &OwnedFd) -> io::Result<()> {
    // Who is not the machine's administrator gets what `net.core.rmem_max` allows.
    sockopt::set_socket_recv_buffer_size_force(socket, ROOM)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, ROOM))
}

fn descriptors(pid: u32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets =
        entries.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")));
    sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
