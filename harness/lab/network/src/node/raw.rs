//! Frames as they are, out of an interface.

#![allow(unsafe_code)] // an address of AF_PACKET, which no crate of ours makes

use std::io;
use std::os::fd::AsRawFd;

use nix::libc::{AF_PACKET, sockaddr, sockaddr_ll};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};
use udn_lab_sys::netns::Netns;

/// Sends complete Ethernet frames by the interface with this index.
pub(crate) fn transmit(netns: &Netns, index: u32, frames: &[Vec<u8>]) -> io::Result<()> {
    let to = link(index)?;
    netns.run(|| {
        let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        for frame in frames {
            sendto(raw.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        }
        Ok(())
    })?
}

/// The interface as an address; frames bring their own destination.
fn link(index: u32) -> io::Result<LinkAddr> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let address = sockaddr_ll {
        sll_family: u16::try_from(AF_PACKET).map_err(|_| invalid())?,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).map_err(|_| invalid())?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of::<sockaddr_ll>()).map_err(|_| invalid())?;
    // SAFETY: the pointer is to a whole sockaddr_ll of that length, which is copied before this returns.
    unsafe { LinkAddr::from_raw((&raw const address).cast::<sockaddr>(), Some(length)) }.ok_or_else(invalid)
}
