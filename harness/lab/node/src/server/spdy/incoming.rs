//! What a client sends on its streams.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::server::channels::Size;

/// The longest piece of a window's size that is kept, bytes.
const LONGEST_SIZE: usize = 1024;

/// Where the client's bytes go.
pub(super) struct Incoming {
    /// None where the client's standard input is closed, or nobody reads it.
    typed: Option<mpsc::Sender<Bytes>>,
    stdin: Option<u32>,
    resized: watch::Sender<(u16, u16)>,
    resize: Option<u32>,
    sizes: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(typed: mpsc::Sender<Bytes>, resized: watch::Sender<(u16, u16)>) -> Self {
        Self { typed: Some(typed), stdin: None, resized, resize: None, sizes: Vec::new() }
    }

    /// This stream is standard input.
    pub(super) fn stdin(&mut self, stream: u32) {
        self.stdin = Some(stream);
    }

    /// This stream carries the window's size.
    pub(super) fn resize(&mut self, stream: u32) {
        self.resize = Some(stream);
    }

    /// Waits where what was typed before has not been read. What is for no known stream is thrown away.
    pub(super) async fn data(&mut self, stream: u32, bytes: Bytes, last: bool) {
        if self.resize == Some(stream) {
            self.sized(&bytes);
        } else if self.stdin == Some(stream) && !bytes.is_empty() {
            let read = match &self.typed {
                Some(typed) => typed.send(bytes).await.is_ok(),
                None => true,
            };
            if !read {
                self.typed = None;
            }
        }
        if last {
            self.end(stream);
        }
    }

    /// The client sends no more on this stream.
    pub(super) fn end(&mut self, stream: u32) {
        if self.stdin == Some(stream) {
            self.typed = None;
        }
    }

    /// Sizes are JSON objects, one after the other, which no frame needs to hold in full.
    fn sized(&mut self, bytes: &[u8]) {
        self.sizes.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.sizes).into_iter::<Size>();
        let mut latest = None;
        let is_cut = loop {
            match sizes.next() {
                Some(Ok(size)) => latest = Some(size),
                Some(Err(error)) => break error.is_eof(),
                None => break true,
            }
        };
        let read = sizes.byte_offset();
        if let Some(Size { width, height }) = latest {
            self.resized.send_replace((width, height));
        }
        self.sizes.drain(..read);
        // Where no size can be found, the next one may begin with the next frame.
        if !is_cut || self.sizes.len() > LONGEST_SIZE {
            self.sizes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming() -> (Incoming, mpsc::Receiver<Bytes>, watch::Receiver<(u16, u16)>) {
        let (typed, stdin) = mpsc::channel(4);
        let (resized, size) = watch::channel((0, 0));
        let mut incoming = Incoming::new(typed, resized);
        incoming.stdin(3);
        incoming.resize(5);
        (incoming, stdin, size)
    }

    #[tokio::test]
    async fn the_last_bytes_close_standard_input_only() {
        let (mut incoming, mut stdin, size) = incoming();
        incoming.data(3, "abc".into(), false).await;
        incoming.data(1, "for nobody".into(), true).await;
        incoming.data(3, "def".into(), true).await;
        incoming.data(3, "too late".into(), false).await;
        assert_eq!(stdin.recv().await, Some("abc".into()));
        assert_eq!(stdin.recv().await, Some("def".into()));
        assert_eq!(stdin.recv().await, None);
        incoming.data(5, r#"{"Width":1,"Height":2}"#.into(), false).await;
        assert_eq!(*size.borrow(), (1, 2));
    }

    #[tokio::test]
    async fn sizes_come_in_pieces_and_together() {
        let (mut incoming, _stdin, size) = incoming();
        let text = "{\"Width\":80,\"Height\":24}\n{\"Width\":81,\"Height\":25}\n";
        for byte in text.bytes() {
            incoming.data(5, vec![byte].into(), false).await;
        }
        assert_eq!(*size.borrow(), (81, 25));
        incoming.data(5, format!("{text}{{\"Wid").into(), false).await;
        incoming.data(5, "th\":7,\"Height\":8}".into(), false).await;
        assert_eq!(*size.borrow(), (7, 8));
    }

    #[tokio::test]
    async fn nonsense_is_not_a_size_and_is_not_kept() {
        let (mut incoming, _stdin, size) = incoming();
        incoming.data(5, "}{".into(), false).await;
        incoming.data(5, "{\"Width\":70000,\"Height\":1}\n".into(), false).await;
        for _ in 0..1000 {
            incoming.data(5, vec![b'['; 100].into(), false).await;
            assert!(incoming.sizes.len() <= LONGEST_SIZE);
        }
        incoming.data(5, vec![b'x'; 2000].into(), false).await;
        incoming.data(5, "{\"Width\":7,\"Height\":8}\n".into(), false).await;
        assert_eq!(*size.borrow(), (7, 8));
    }
}
