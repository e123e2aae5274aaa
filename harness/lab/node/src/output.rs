//! What a container prints: kept in a bounded ring for `logs`, and passed on as it comes to `attach`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{broadcast, watch};

/// What is kept of one container run, bytes; older lines go first.
const KEPT: usize = 2 * 1024 * 1024;
/// A line longer than this is kept in pieces, as container runtimes do.
const LINE: usize = 16 * 1024;
/// What one entry costs beside its text, roughly, bytes.
const ENTRY_OVERHEAD: usize = 64;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or everything where there is a terminal.
    Out,
    /// Standard error.
    Err,
}

/// A line, or a piece of a long one.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// When it was read.
    pub time: Timestamp,
    /// With its newline, unless it is a piece of a line that goes on.
    pub text: Bytes,
}

/// The output of one run of a container.
#[derive(Debug)]
pub(crate) struct Output {
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
    live: broadcast::Sender<(Stream, Bytes)>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    /// Number of the first entry kept.
    first: u64,
    bytes: usize,
    closed: bool,
}

/// Entries from some position on.
pub(crate) struct Batch {
    pub entries: Vec<Entry>,
    /// Where the next batch begins.
    pub next: u64,
    /// Whether nothing will come any more.
    pub closed: bool,
}

impl Output {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ring: Mutex::default(), changed: watch::channel(()).0, live: broadcast::channel(256).0 })
    }

    /// Reads a stream to its end.
    pub(crate) async fn capture(&self, stream: Stream, mut reader: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; 32 * 1024];
        let mut line = Vec::new();
        loop {
            match reader.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(count) => self.take(stream, &chunk[..count], &mut line),
            }
        }
        if !line.is_empty() {
            self.append(&line);
        }
    }

    /// Takes a piece of a stream; `line` holds what has no end yet.
    pub(crate) fn take(&self, stream: Stream, chunk: &[u8], line: &mut Vec<u8>) {
        if self.live.receiver_count() > 0 {
            // Only fails when the last listener just left.
            let _ = self.live.send((stream, Bytes::copy_from_slice(chunk)));
        }
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || line.len() >= LINE {
                self.append(line);
                line.clear();
            }
        }
    }

    fn append(&self, text: &[u8]) {
        let mut ring = self.ring();
        ring.bytes += text.len() + ENTRY_OVERHEAD;
        ring.entries.push_back(Entry { time: Timestamp::now(), text: Bytes::copy_from_slice(text) });
        while ring.bytes > KEPT {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.bytes -= oldest.text.len() + ENTRY_OVERHEAD;
            ring.first += 1;
        }
        drop(ring);
        self.changed.send_replace(());
    }

    /// Says that the container has ended and everything was read.
    pub(crate) fn close(&self) {
        self.ring().closed = true;
        self.changed.send_replace(());
    }

    /// What there is from `position` on, without waiting.
    pub(crate) fn read(&self, position: u64) -> Batch {
        let ring = self.ring();
        let skip = usize::try_from(position.saturating_sub(ring.first)).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = ring.entries.iter().skip(skip).cloned().collect();
        Batch { entries, next: ring.first + ring.entries.len() as u64, closed: ring.closed }
    }

    /// Tells when there is more to [`Output::read`].
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The streams as they come, from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<(Stream, Bytes)> {
        self.live.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe whose reading end is ours: the reader, and the descriptor for the process.
pub(crate) fn pipe_from_process() -> io::Result<(tokio::net::unix::pipe::Receiver, std::os::fd::OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
}

/// A pipe whose writing end is ours: the writer, and the descriptor for the process.
pub(crate) fn pipe_to_process() -> io::Result<(tokio::net::unix::pipe::Sender, std::os::fd::OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((tokio::net::unix::pipe::Sender::from_owned_fd(writer.into())?, reader.into()))
}

/// `/dev/null`, for a process without input.
pub(crate) fn nothing() -> io::Result<std::os::fd::OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(batch: &Batch) -> String {
        batch.entries.iter().map(|entry| String::from_utf8_lossy(&entry.text)).collect()
    }

    #[tokio::test]
    async fn lines_are_kept_whole_however_they_arrive() {
        let output = Output::new();
        let mut line = Vec::new();
        output.take(Stream::Out, b"one\ntw", &mut line);
        output.take(Stream::Out, b"o\nthree", &mut line);
        let batch = output.read(0);
        assert_eq!((text(&batch).as_str(), batch.next), ("one\ntwo\n", 2));
        output.capture(Stream::Out, &b"last"[..]).await;
        assert_eq!(text(&output.read(2)), "last");
    }

    #[test]
    fn the_ring_is_bounded_and_positions_stay_true() {
        let output = Output::new();
        let mut line = Vec::new();
        let long = [vec![b'x'; 1000], vec![b'\n']].concat();
        for _ in 0..5000 {
            output.take(Stream::Out, &long, &mut line);
        }
        let all = output.read(0);
        assert_eq!(all.next, 5000);
        assert!(text(&all).len() <= KEPT && text(&all).len() > KEPT / 2);
        assert_eq!(output.read(4999).entries.len(), 1);
        assert_eq!(output.read(9999).entries.len(), 0);
    }

    #[test]
    fn a_line_without_end_is_kept_in_pieces() {
        let output = Output::new();
        let mut line = Vec::new();
        output.take(Stream::Err, &vec![b'y'; LINE * 2], &mut line);
        assert!(!output.read(0).entries.is_empty());
        assert!(line.len() < LINE * 2);
    }
}
