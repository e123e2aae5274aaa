//! Frames out of a connection.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::frames::{Control, HEAD, Head, Malformed};

/// Room for what a client sends, bytes. Every session has it for good.
const READ_BUFFER: usize = 8 * 1024;

/// A frame, or a part of one: data comes as it arrives, so that a long frame needs no memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// `last` with the stream's last bytes, which may be none.
    Data {
        stream: u32,
        last: bool,
        bytes: Bytes,
    },
    Control(Control),
}

/// Why there are no more frames.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the client sent {0}")]
    Malformed(#[from] Malformed),
    #[error("cannot read from the client: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames.
pub(super) struct Frames<R> {
    reader: R,
    buffer: BytesMut,
    /// Of a frame of data that has not been there in full: stream, whether it is the last one, bytes to come.
    rest: Option<(u32, bool, usize)>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new(), rest: None }
    }

    /// None at the end of the connection. Nothing is lost where this is dropped before it is ready.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        if let Some((stream, last, length)) = self.rest {
            if !self.fill(1).await? {
                return Err(cut());
            }
            return Ok(Some(self.data(stream, last, length)));
        }
        if !self.fill(HEAD).await? {
            return if self.buffer.is_empty() { Ok(None) } else { Err(cut()) };
        }
        let mut head = [0; HEAD];
        head.copy_from_slice(&self.buffer[..HEAD]);
        match Head::parse(head)? {
            Head::Data { stream, last, length } => {
                let _ = self.buffer.split_to(HEAD);
                Ok(Some(self.data(stream, last, length)))
            }
            Head::Control { kind, flags, length } => {
                if !self.fill(HEAD + length).await? {
                    return Err(cut());
                }
                let body = self.buffer.split_to(HEAD + length).split_off(HEAD).freeze();
                Ok(Some(Frame::Control(Control::parse(kind, flags, body)?)))
            }
        }
    }

    /// As much of a frame as is there.
    fn data(&mut self, stream: u32, last: bool, length: usize) -> Frame {
        let bytes = self.buffer.split_to(length.min(self.buffer.len())).freeze();
        let left = length - bytes.len();
        self.rest = (left > 0).then_some((stream, last, left));
        Frame::Data { stream, last: last && left == 0, bytes }
    }

    /// Reads until there are so many bytes; false where the connection ends before.
    async fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() < wanted {
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(READ_BUFFER);
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn cut() -> ReadError {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a frame").into()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::frames::{put_data, put_ping};
    use super::*;

    /// All frames of what comes in pieces of this size, bytes of the same stream joined.
    async fn read(bytes: &[u8], size: usize) -> Result<Vec<Frame>, ReadError> {
        let (mut to, from) = tokio::io::duplex(size);
        let bytes = bytes.to_vec();
        let write = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let _ = to.write_all(&bytes).await;
        });
        let mut frames = Frames::new(from);
        let mut all: Vec<Frame> = Vec::new();
        while let Some(frame) = frames.next().await? {
            all.push(frame);
        }
        write.await.unwrap();
        Ok(all)
    }

    #[tokio::test]
    async fn frames_come_in_pieces() {
        let mut sent = BytesMut::new();
        put_ping(&mut sent, 1);
        put_data(&mut sent, 5, true, &[7; 100]);
        put_data(&mut sent, 7, true, b"");
        put_ping(&mut sent, 3);
        for size in [1, 3, 8, 1000] {
            let frames = read(&sent, size).await.unwrap();
            assert_eq!(frames.first(), Some(&Frame::Control(Control::Ping(1))));
            assert_eq!(frames.last(), Some(&Frame::Control(Control::Ping(3))));
            let (mut length, mut ends) = (0, Vec::new());
            for frame in &frames {
                if let Frame::Data { stream, last, bytes } = frame {
                    length += bytes.len();
                    if *last {
                        ends.push((*stream, length));
                    }
                }
            }
            assert_eq!(ends, [(5, 100), (7, 100)], "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_a_frame_is_an_error() {
        let mut sent = BytesMut::new();
        put_data(&mut sent, 5, true, b"abc");
        put_ping(&mut sent, 1);
        for length in 1..sent.len() {
            let outcome = read(&sent[..length], 1000).await;
            assert_eq!(outcome.is_ok(), length == 11, "{length}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_long_frame_is_not_kept() {
        let (mut to, from) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            to.write_all(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).await.unwrap();
            for _ in 0..0xff_ffff / 0xffff + 1 {
                let _ = to.write_all(&vec![0; 0xffff]).await;
            }
        });
        let mut frames = Frames::new(from);
        let mut length = 0;
        while length < 0xff_ffff {
            let Some(Frame::Data { bytes, .. }) = frames.next().await.unwrap() else { panic!("no data") };
            length += bytes.len();
            assert!(frames.buffer.capacity() <= 2 * READ_BUFFER, "{}", frames.buffer.capacity());
        }
    }
}
