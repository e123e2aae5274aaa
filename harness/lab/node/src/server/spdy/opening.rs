//! The client's streams, until all are there.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frames::{Control, Malformed, Reset, put_ping, put_reply, put_reset};
use super::headers::{Deflater, Inflater};
use super::incoming::Incoming;
use super::outgoing::Streams;
use super::reader::{Frame, Frames, ReadError};
use crate::server::channels::Asked;

/// The header that says what a stream is for.
const STREAM_TYPE: &str = "streamtype";

/// Why a session does not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the client went before it had opened its streams")]
    Gone,
    #[error("cannot answer the client: {0}")]
    Write(#[from] io::Error),
}

impl From<Malformed> for OpenError {
    fn from(malformed: Malformed) -> Self {
        Self::Read(malformed.into())
    }
}

/// Opens streams. Its compressed streams of headers go with it: a session, once begun, needs no headers.
pub(super) struct Opening<'a, R, W> {
    pub frames: &'a mut Frames<R>,
    pub writer: &'a mut W,
    pub streams: &'a mut Streams,
    pub incoming: &'a mut Incoming,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Opening<'_, R, W> {
    /// Returns when all streams that were asked for are there.
    pub(super) async fn run(mut self, asked: Asked) -> Result<(), OpenError> {
        let (mut inflater, mut deflater) = (Inflater::new(), Deflater::new()?);
        let mut answer = BytesMut::new();
        while self.streams.missing(asked).is_some() {
            match self.frames.next().await?.ok_or(OpenError::Gone)? {
                // Impatient clients send before all is open; at most as much as is kept is read.
                Frame::Data { stream, last, bytes } => self.incoming.data(stream, bytes, last).await,
                Frame::Control(Control::Open { stream, last, unidirectional, block }) => {
                    let headers = inflater.block(&block)?;
                    if stream % 2 == 0 || stream <= self.streams.newest {
                        return Err(Malformed::StreamNumber(stream).into());
                    }
                    self.streams.newest = stream;
                    let kind = headers.iter().find(|(name, _)| name == STREAM_TYPE).map(|(_, value)| value.as_str());
                    if unidirectional {
                        put_reset(&mut answer, stream, Reset::Protocol);
                    } else if self.open(kind.unwrap_or_default(), stream) {
                        put_reply(&mut answer, stream, &deflater.block(&[])?);
                    } else {
                        put_reset(&mut answer, stream, Reset::Refused);
                    }
                    if last {
                        self.incoming.end(stream);
                    }
                }
                Frame::Control(Control::Headers { stream, last, block }) => {
                    inflater.block(&block)?;
                    if last {
                        self.incoming.end(stream);
                    }
                }
                Frame::Control(Control::Reset { stream }) => {
                    self.incoming.end(stream);
                    self.streams.forget(stream);
                }
                Frame::Control(Control::Ping(id)) if id % 2 == 1 => put_ping(&mut answer, id),
                Frame::Control(Control::Ping(_) | Control::GoAway | Control::Other) => {}
            }
            if !answer.is_empty() {
                self.writer.write_all_buf(&mut answer).await?;
                self.writer.flush().await?;
            }
        }
        Ok(())
    }

    /// False for a stream that nobody knows, or that is open already.
    fn open(&mut self, kind: &str, stream: u32) -> bool {
        let place = match kind {
            "error" => &mut self.streams.error,
            "stdin" => &mut self.streams.stdin,
            "stdout" => &mut self.streams.stdout,
            "stderr" => &mut self.streams.stderr,
            "resize" => &mut self.streams.resize,
            _ => return false,
        };
        if place.is_some() {
            return false;
        }
        *place = Some(stream);
        match kind {
            "stdin" => self.incoming.stdin(stream),
            "resize" => self.incoming.resize(stream),
            _ => {}
        }
        true
    }
}
