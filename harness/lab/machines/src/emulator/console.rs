//! A guest's console: one stream of bytes, and whoever came last to talk to it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

/// How much is read at a time, bytes.
const CHUNK: usize = 32 * 1024;
/// Pieces on their way to a client; beyond, the guest waits.
const IN_FLIGHT: usize = 64;
/// What is remembered of what was said, bytes.
const REMEMBERED: usize = 8 * 1024;

type Client = Option<mpsc::Sender<Bytes>>;

/// A console. What the guest says while nobody listens is lost, as with a real one.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    client: Arc<watch::Sender<Client>>,
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    last: VecDeque<u8>,
    ended: bool,
}

/// A client's side of a console; ends when another client comes, and when the guest does.
#[derive(Debug)]
pub(crate) struct Session {
    /// What the guest says.
    pub(crate) output: mpsc::Receiver<Bytes>,
    console: Console,
}

impl Console {
    /// A console of which the emulator holds the other end.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (mut reader, writer) = stream.into_split();
        let console = Self {
            client: Arc::new(watch::Sender::new(None)),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            said: Arc::default(),
        };
        let (client, said) = (console.client.clone(), console.said.clone());
        tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                let piece = &chunk[..count];
                remember(&said, piece);
                deliver(&client, Bytes::copy_from_slice(piece)).await;
            }
            said.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            client.send_replace(None);
        });
        console
    }

    /// Takes the console over from whoever has it; none once the guest has ended.
    pub(crate) fn attach(&self) -> Option<Session> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.ended {
            return None;
        }
        let (sender, output) = mpsc::channel(IN_FLIGHT);
        self.client.send_replace(Some(sender));
        Some(Session { output, console: self.clone() })
    }

    /// What the guest said last, as text.
    #[cfg(test)]
    pub(crate) fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = said.last.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn remember(said: &Mutex<Said>, piece: &[u8]) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    said.last.extend(piece);
    let surplus = said.last.len().saturating_sub(REMEMBERED);
    said.last.drain(..surplus);
}

/// To the present client; a client that comes while the present one is slow gets it instead.
async fn deliver(client: &watch::Sender<Client>, piece: Bytes) {
    let mut changes = client.subscribe();
    loop {
        let Some(sender) = changes.borrow_and_update().clone() else { return };
        tokio::select! {
            sent = sender.send(piece.clone()) => {
                if sent.is_err() {
                    // It is gone; only if nobody else came meanwhile is there nobody.
                    client.send_if_modified(|now| {
                        let same = now.as_ref().is_some_and(|now| now.same_channel(&sender));
                        if same {
                            *now = None;
                        }
                        same
                    });
                    continue;
                }
                return;
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

impl Session {
    /// Types.
    ///
    /// # Errors
    /// When the guest has ended.
    pub(crate) async fn type_in(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.console.writer.lock().await.write_all(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_client_wins() {
        let (guest, emulator) = UnixStream::pair().unwrap();
        let console = Console::new(emulator);
        let (mut from_console, mut to_console) = guest.into_split();
        let mut first = console.attach().unwrap();
        to_console.write_all(b"one").await.unwrap();
        assert_eq!(first.output.recv().await.unwrap(), "one");
        let mut second = console.attach().unwrap();
        assert!(first.output.recv().await.is_none(), "the first was not told that it is out");
        to_console.write_all(b"two").await.unwrap();
        assert_eq!(second.output.recv().await.unwrap(), "two");
        second.type_in(b"three").await.unwrap();
        let mut typed = [0; 5];
        from_console.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"three");
        drop((from_console, to_console));
        assert!(second.output.recv().await.is_none());
        assert!(console.attach().is_none(), "a guest that has ended has no console");
        assert_eq!(console.last_words(), "onetwo");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_replaced() {
        let (guest, emulator) = UnixStream::pair().unwrap();
        let console = Console::new(emulator);
        let (_reader, mut to_console) = guest.into_split();
        let _slow = console.attach().unwrap();
        let flood = tokio::spawn(async move {
            loop {
                if to_console.write_all(&[b'x'; 1024]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let mut quick = console.attach().unwrap();
        for _ in 0..1000 {
            quick.output.recv().await.unwrap();
        }
        flood.abort();
    }
}
