//! The kernel's randomness.

use rustix::fd::AsRawFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::check;

/// `_IO('R', 0x07)` of `linux/random.h`.
const RNDRESEEDCRNG: u32 = 0x5207;

/// Makes the kernel's generator go on from here with these bytes as well, so that two copies of one machine part.
pub(crate) fn reseed(seed: &[u8]) -> Result<(), Errno> {
    let device = open("/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&device, seed)?;
    // SAFETY: it takes no argument.
    let taken = unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as libc::Ioctl) };
    match check(taken as isize) {
        // It has not begun to give any out, and will begin with these.
        Err(Errno::NODATA) => Ok(()),
        taken => taken.map(drop),
    }
}
