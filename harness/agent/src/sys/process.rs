//! Processes and signals.

use core::ffi::c_int;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::check;

/// Standard input.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: nothing here closes it; where it was never open, using it is an error and nothing worse.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Standard output.
pub(crate) fn stdout() -> BorrowedFd<'static> {
    // SAFETY: as above.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Standard error.
pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as above.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// Which of the two processes this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that was there before.
    Parent,
    /// The new one.
    Child,
}

/// Splits into two processes.
pub(crate) fn fork() -> Result<Side, Errno> {
    // SAFETY: the agent has one thread, so the child may go on with anything.
    let child = check(unsafe { libc::fork() } as isize)?;
    Ok(if child == 0 { Side::Child } else { Side::Parent })
}

/// Prepares signals for a process that may be the first of a pod or VM: children are not waited for, a broken pipe is an
/// error and not the end, and SIGTERM and SIGINT end the process though nothing has a default action for process 1.
pub(crate) fn prepare_signals() {
    extern "C" fn end(_signal: c_int) {
        // SAFETY: `_exit` is allowed in a signal handler.
        unsafe { libc::_exit(0) }
    }
    // SAFETY: the handler only calls `_exit`; the other two are the kernel's own.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t);
        libc::signal(libc::SIGINT, end as *const () as libc::sighandler_t);
    }
}
