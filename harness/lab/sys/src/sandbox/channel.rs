//! Messages between parent and main: JSON lines over one socket, file descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a sandbox says to its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A step of the bring-up is done.
    Step {
        /// What.
        step: String,
        /// Since the start, milliseconds.
        at_ms: u64,
    },
    /// Everything is up.
    Ready {
        /// Since the start, milliseconds.
        at_ms: u64,
        /// Facts for the parent.
        facts: serde_json::Value,
    },
    /// The bring-up failed, or the lab broke later.
    Failed {
        /// The cause.
        message: String,
    },
    /// The kernel refused namespaces; kept apart so that the parent can add the remedy.
    NoNamespaces {
        /// The kernel's error number.
        errno: i32,
    },
}

/// One end of the socket.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Channel {
    /// Wraps `stream`.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// The end that the parent left as this process' standard input.
    ///
    /// # Errors
    /// When standard input cannot be duplicated.
    pub fn of_stdin() -> io::Result<Self> {
        Ok(Self::new(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        (&self.stream).write_all(&line)
    }

    /// The next message; none when the other end is gone.
    ///
    /// # Errors
    /// When it is not a `T`.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a file descriptor. It must be the other end's next read.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn send_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.stream, &[IoSlice::new(b"f")], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives what [`Channel::send_fd`] sent.
    ///
    /// # Errors
    /// When something else comes.
    pub fn receive_fd(&mut self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&self.stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let received = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        received.ok_or_else(|| io::Error::other("a file descriptor was expected and did not come"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_messages_and_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, mut b) = (Channel::new(a), Channel::new(b));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        a.send_fd(listener.as_fd()).unwrap();
        let event = Event::Failed { message: "two\nlines".into() };
        a.send(&event).unwrap();
        a.send(&event).unwrap();
        let received = std::net::TcpListener::from(b.receive_fd().unwrap());
        assert_eq!(received.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(b.receive::<Event>().unwrap(), Some(event.clone()));
        assert_eq!(b.receive::<Event>().unwrap(), Some(event));
        drop(a);
        assert_eq!(b.receive::<Event>().unwrap(), None);
    }
}
