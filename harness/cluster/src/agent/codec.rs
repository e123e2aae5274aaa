//! JSON Lines on a byte stream.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Longest line that is read, bytes: an answer with [`udn_agent::protocol::ARRIVALS_PER_ANSWER`] entries is far shorter.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Reads values, one a line.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Whether others say things on the same stream, too.
    shared: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// A reader of lines.
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, reader), line: Vec::new(), shared: false }
    }

    /// A reader that skips what is no such value: on a console the kernel speaks as well.
    #[must_use]
    pub fn skipping(self) -> Self {
        Self { shared: true, ..self }
    }

    /// The next value; `None` at the end. A half-written last line is thrown away: its writer will say it again.
    ///
    /// Cancel-safe: a line that was read in part is gone on with.
    ///
    /// # Errors
    /// The stream fails, or says something that is no such value.
    pub async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            let room = LONGEST.saturating_sub(self.line.len() as u64);
            let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await?;
            if !self.line.ends_with(b"\n") {
                if read == 0 && room > 0 {
                    return Ok(None);
                }
                if self.line.len() as u64 >= LONGEST && self.shared {
                    self.line.clear();
                } else if self.line.len() as u64 >= LONGEST {
                    return Err(invalid(format!("a line longer than {LONGEST} bytes")));
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let read = serde_json::from_slice(text);
            if let (true, Err(_)) = (self.shared, &read) {
                tracing::trace!(line = %String::from_utf8_lossy(text), "not the agent");
                continue;
            }
            return read.map(Some).map_err(|error| {
                let shown: String = String::from_utf8_lossy(text).chars().take(200).collect();
                invalid(format!("not what an agent says ({error}): {shown}"))
            });
        }
    }
}

/// Writes values, one a line, and flushes.
///
/// # Errors
/// The stream fails.
pub async fn write_lines<T: Serialize>(writer: &mut (impl AsyncWrite + Unpin), values: &[T]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(values.len() * 160);
    for value in values {
        serde_json::to_writer(&mut bytes, value)?;
        bytes.push(b'\n');
    }
    writer.write_all(&bytes).await?;
    writer.flush().await
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio_test::io::Builder;
    use udn_agent::protocol::{Body, Message, Op, Request};

    use super::*;

    #[tokio::test]
    async fn lines_may_come_in_any_pieces() {
        let stream = Builder::new()
            .read(b"{\"seq\":1,\"id\":7,")
            .read(b"\"body\":\"done\"}\n\n{\"seq\":2,\"id\":8,\"body\":\"do")
            .read(b"ne\"}\n{\"seq\":3,")
            .build();
        let mut lines = Lines::new(stream);
        assert_eq!(lines.next().await.unwrap(), Some(Message { seq: 1, id: 7, body: Body::Done }));
        assert_eq!(lines.next().await.unwrap(), Some(Message { seq: 2, id: 8, body: Body::Done }));
        assert_eq!(lines.next::<Message>().await.unwrap(), None, "half a line is none");
    }

    #[tokio::test]
    async fn what_is_no_message_is_shown() {
        let mut lines = Lines::new(Builder::new().read(b"sh: /udn/agent: not found\n").build());
        let error = lines.next::<Message>().await.unwrap_err().to_string();
        assert!(error.contains("sh: /udn/agent: not found"), "{error}");
    }

    #[tokio::test]
    async fn others_on_a_console_are_skipped() {
        let stream = Builder::new()
            .read(b"[    0.51] Linux version 6.1\r\ninit: {half a li\n\xff\xfe\n{\"seq\":1,\"id\":7,\"body\":\"done\"}\r\n")
            .build();
        let mut lines = Lines::new(stream).skipping();
        assert_eq!(lines.next().await.unwrap(), Some(Message { seq: 1, id: 7, body: Body::Done }));
        assert_eq!(lines.next::<Message>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_broken_stream_is_an_error() {
        let mut lines = Lines::new(Builder::new().read_error(io::Error::other("cut")).build());
        assert_eq!(lines.next::<Message>().await.unwrap_err().to_string(), "cut");
    }

    #[tokio::test]
    async fn each_request_is_a_line() {
        let mut stream = Builder::new().write(b"{\"id\":1,\"op\":\"ping\"}\n{\"id\":2,\"op\":\"facts\"}\n").build();
        let requests = [Request { id: 1, op: Op::Ping }, Request { id: 2, op: Op::Facts }];
        write_lines(&mut stream, &requests).await.unwrap();
    }
}
