//! Waiting for a file descriptor to be ready: the unsafe call that it takes, in one place.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is an open descriptor until it is dropped, nothing else can replace the one inside, and
    // the returned value owns it.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
