//! A terminal, serial port or virtio port made fit to carry lines.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};

use crate::sys::options;

/// Opens a device: raw, without echo, whether or not anybody is at its other end. Nothing written to it waits.
pub(crate) fn open(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open_file(path, flags, Mode::empty())?;
    // A virtio port is no terminal and changes nothing.
    if let Ok(mut terminal) = tcgetattr(&device) {
        terminal.make_raw();
        // No modem line tells whether somebody is there.
        terminal.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        tcsetattr(&device, OptionalActions::Now, &terminal)?;
    }
    Ok(device)
}

/// Has everything left that was written?
pub(super) fn is_drained(device: impl AsFd) -> bool {
    // What is no terminal keeps nothing back.
    options::unsent(device).is_ok_and(|bytes| bytes == 0)
}
