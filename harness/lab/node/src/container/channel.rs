//! A socket pair that keeps packets apart and carries file descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::unix::AsyncFd;

use super::job::Report;
use crate::readiness::register;

/// The most descriptors in one packet: job, namespace, stdin, stdout, stderr.
const DESCRIPTORS: usize = 5;
/// The longest packet, bytes. Jobs travel in a memory file, so that packets are short.
const PACKET: usize = 8 * 1024;

/// A connected pair; both ends close on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one packet.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many file descriptors for one packet"));
    }
    let packet = &bytes[..bytes.len().min(PACKET)];
    retry_on_intr(|| sendmsg(socket.as_fd(), &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one packet; no bytes and no descriptors mean that the other end is gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket.as_fd(), &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?.bytes,
        }
    };
    bytes.truncate(received);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((bytes, descriptors))
}

/// Sends a report; the node agent may be gone, then nobody is left to tell.
pub(crate) fn report(socket: impl AsFd, report: &Report, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(socket, &serde_json::to_vec(report)?, descriptors)
}

/// The node agent's end.
pub(crate) struct Reports(AsyncFd<OwnedFd>);

impl Reports {
    /// Takes over the node agent's end of a [`pair`].
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(register(socket)?))
    }

    /// The next report, `None` when the start-up program is gone.
    pub(crate) async fn next(&mut self) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            let Ok(received) = ready.try_io(|socket| receive(socket.get_ref())) else { continue };
            let (bytes, descriptors) = received?;
            if bytes.is_empty() {
                return Ok(None);
            }
            return Ok(Some((serde_json::from_slice(&bytes)?, descriptors)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_descriptor_travels_with_its_packet() {
        let (ours, theirs) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        report(&theirs, &Report::Started { pid: 7 }, &[writer.as_fd()]).unwrap();
        drop(writer);
        drop(theirs);
        let (bytes, mut descriptors) = receive(&ours).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&bytes).unwrap(), Report::Started { pid: 7 });
        io::PipeWriter::from(descriptors.remove(0)).write_all(b"hello").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let (bytes, descriptors) = receive(&ours).unwrap();
        assert!(bytes.is_empty() && descriptors.is_empty(), "the other end is closed");
    }
}
