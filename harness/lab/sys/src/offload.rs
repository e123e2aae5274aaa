//! Checksum offload of an interface.
//!
//! A virtual interface hands frames on with partial checksums, trusting the receiver to be the same kernel. Open vSwitch's
//! userspace datapath reads them from a raw socket, and what it then sends elsewhere is dropped as corrupt.
#![allow(unsafe_code)] // one ioctl that no crate of ours wraps

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use crate::netns::Netns;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;

#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Does what `ethtool -K <interface> tx off` does.
///
/// # Errors
/// The kernel's, when there is no such interface or it may not be changed.
pub fn disable_tx_checksum(netns: &Netns, interface: &str) -> io::Result<()> {
    netns.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        let mut value = Value { command: ETHTOOL_STXCSUM, data: 0 };
        // SAFETY: zero is a valid value of every field of this plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if interface.len() >= request.ifr_name.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the kernel reads the request and the value behind its pointer; both outlive the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })?
}
