//! Tap interfaces: what an emulator plugs its guest's network card into.
#![allow(unsafe_code)] // one ioctl that no crate of ours wraps

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::netns::Netns;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;

/// Adds a tap interface that stays when nobody holds it; it goes with its namespace.
///
/// # Errors
/// The kernel's: no `/dev/net/tun`, no right, or a name that is taken or too long.
pub fn add(netns: &Netns, name: &str) -> io::Result<()> {
    netns.run(|| {
        let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: zero is a valid value of every field of this plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI;
        // SAFETY: the kernel reads the request, which outlives the call.
        if unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF as _, &raw mut request) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the argument is a number.
        match unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETPERSIST as _, 1) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })?
}
