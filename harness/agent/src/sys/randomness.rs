//! The kernel's randomness.

use rustix::fd::AsRawFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::check;

/// Bytes of a seed: as many as the kernel's generator has for a key.
pub(crate) const SEED: usize = 32;

/// `struct rand_pool_info` of `linux/random.h`: bits of entropy, bytes, and the bytes.
#[repr(C)]
struct Pool {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; SEED],
}

// `linux/random.h`: `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)`.
const RNDADDENTROPY: u32 = 0x4008_5203;
const RNDRESEEDCRNG: u32 = 0x5207;

/// Makes the kernel's generator go on from here with these bytes as well, so that two copies of one machine part.
pub(crate) fn reseed(seed: &[u8; SEED]) -> Result<(), Errno> {
    let device = open("/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let pool = Pool { entropy_count: 8 * SEED as libc::c_int, buf_size: SEED as libc::c_int, buf: *seed };
    // SAFETY: the pointer is valid while the call lasts, for as many bytes as the structure says of itself; the kernel only reads.
    let added = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as libc::Ioctl, core::ptr::from_ref(&pool)) };
    check(added as isize)?;
    // SAFETY: it takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as libc::Ioctl) } as isize).map(drop)
}
