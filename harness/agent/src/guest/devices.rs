//! When something new appears in the machine.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

/// The group that the kernel itself tells.
const KERNEL: u32 = 1;

/// A socket that becomes ready when a device appears, after its node in /dev is there.
pub(super) fn open() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let protocol = Some(netlink::KOBJECT_UEVENT);
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
    net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

/// Reads all that is told; what it is does not matter.
pub(super) fn drain(socket: &OwnedFd) {
    let mut buffer = [0; 4096];
    loop {
        match net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            // Too much was told at once: something is new.
            Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
            Err(_) => return,
        }
    }
}
