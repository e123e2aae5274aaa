//! What a client gets on its streams.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frames::{Away, Reset, put_data, put_go_away, put_ping, put_reset};
use crate::server::channels::{Asked, Said, Source};

/// The numbers of a client's streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub error: Option<u32>,
    pub stdin: Option<u32>,
    pub stdout: Option<u32>,
    pub stderr: Option<u32>,
    pub resize: Option<u32>,
    /// The last one that the client opened, whatever became of it.
    pub newest: u32,
}

impl Streams {
    /// The name of a stream that was asked for and is not open.
    pub(super) fn missing(&self, asked: Asked) -> Option<&'static str> {
        [
            ("error", true, self.error),
            ("stdin", asked.stdin, self.stdin),
            ("stdout", asked.stdout, self.stdout),
            ("stderr", asked.stderr, self.stderr),
            ("resize", asked.terminal, self.resize),
        ]
        .into_iter()
        .find_map(|(name, asked, open)| (asked && open.is_none()).then_some(name))
    }

    /// The client does not want this stream any more.
    pub(super) fn forget(&mut self, stream: u32) {
        for open in [&mut self.error, &mut self.stdin, &mut self.stdout, &mut self.stderr, &mut self.resize] {
            if *open == Some(stream) {
                *open = None;
            }
        }
    }
}

/// What the client's own frames make necessary.
#[derive(Debug)]
pub(super) enum Answer {
    Ping(u32),
    /// A stream that comes too late.
    Refuse(u32),
    /// A stream that the client does not want any more.
    Forget(u32),
    /// The client's frames cannot be understood any more.
    GiveUp,
}

/// Sends to a client.
pub(super) struct Outgoing<W> {
    pub writer: W,
    pub streams: Streams,
    pub buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    /// Sends until the status is sent; errors where the client does not take it.
    pub(super) async fn run(
        &mut self,
        said: &mut mpsc::Receiver<Said>,
        answers: &mut mpsc::Receiver<Answer>,
    ) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                Some(answer) = answers.recv() => match answer {
                    Answer::Ping(id) => put_ping(&mut self.buffer, id),
                    Answer::Refuse(stream) => put_reset(&mut self.buffer, stream, Reset::Refused),
                    Answer::Forget(stream) => self.streams.forget(stream),
                    Answer::GiveUp => return self.leave(Away::Protocol).await,
                },
                message = said.recv() => match message {
                    Some(Said::Output(source, bytes)) => self.put_output(source, &bytes),
                    Some(Said::Status(status)) => return self.conclude(&status).await,
                    None => return Ok(()),
                },
            }
            self.writer.write_all_buf(&mut self.buffer).await?;
            if said.is_empty() {
                self.writer.flush().await?;
            }
        }
    }

    fn put_output(&mut self, source: Source, bytes: &[u8]) {
        let stream = match source {
            Source::Stdout => self.streams.stdout,
            Source::Stderr => self.streams.stderr,
        };
        if let Some(stream) = stream.filter(|_| !bytes.is_empty()) {
            put_data(&mut self.buffer, stream, false, bytes);
        }
    }

    /// Sends how it ended, and the end of all streams. Clients wait for that of the output.
    pub(super) async fn conclude(&mut self, status: &[u8]) -> io::Result<()> {
        let streams = &self.streams;
        for stream in [streams.stdout, streams.stderr].into_iter().flatten() {
            put_data(&mut self.buffer, stream, true, b"");
        }
        if let Some(stream) = streams.error {
            put_data(&mut self.buffer, stream, true, status);
        }
        for stream in [streams.stdin, streams.resize].into_iter().flatten() {
            put_data(&mut self.buffer, stream, true, b"");
        }
        self.writer.write_all_buf(&mut self.buffer).await?;
        self.writer.flush().await
    }

    /// Ends the connection.
    pub(super) async fn leave(&mut self, why: Away) -> io::Result<()> {
        put_go_away(&mut self.buffer, self.streams.newest, why);
        self.writer.write_all_buf(&mut self.buffer).await?;
        self.writer.shutdown().await
    }
}
