//! The few kernel interfaces that `rustix` has no safe function for. Everything unsafe in this crate is here.
//!
//! * [`options`]: socket options and packet filters
//! * [`messages`]: messages with ancillary data: error queues, link-layer addresses, local addresses
//! * [`randomness`]: more of it for the kernel
//! * [`process`]: standard streams, the split into two processes, signals
#![allow(unsafe_code)] // Raw system calls: each block says why its arguments are valid.

pub(crate) mod messages;
pub(crate) mod options;
pub(crate) mod process;
pub(crate) mod randomness;

use rustix::io::Errno;

/// The result of a libc call that says -1 for an error.
fn check(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| {
        // SAFETY: the address of the calling thread's errno is always valid.
        Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
    })
}
