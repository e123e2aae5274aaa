//! Sessions with a client at the other end of a pipe.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Duration, timeout};

use super::frames::{put_data, put_ping, put_reset};
use super::headers::{Deflater, Inflater};
use super::session::{DEADLINE, begin};
use crate::server::channels::{Asked, Channels, Source, success};

/// Room between client and server, bytes.
const PIPE: usize = 64 * 1024;
const SOON: Duration = Duration::from_secs(5);

struct Client {
    connection: DuplexStream,
    deflater: Deflater,
    inflater: Inflater,
}

/// What a client gets: kind (None for data), flags, body.
type Got = (Option<u16>, u8, Bytes);

impl Client {
    fn new() -> (Self, DuplexStream) {
        let (connection, server) = tokio::io::duplex(PIPE);
        (Self { connection, deflater: Deflater::new().unwrap(), inflater: Inflater::new() }, server)
    }

    async fn open(&mut self, stream: u32, kind: &str) {
        let block = self.deflater.block(&[("streamtype", kind)]).unwrap();
        let mut frame = BytesMut::new();
        frame.put_slice(&[0x80, 3, 0, 1]);
        frame.put_u32(10 + u32::try_from(block.len()).unwrap());
        frame.put_u32(stream);
        frame.put_slice(&[0; 6]);
        frame.put_slice(&block);
        self.connection.write_all(&frame).await.unwrap();
    }

    async fn send(&mut self, put: impl FnOnce(&mut BytesMut)) {
        let mut frame = BytesMut::new();
        put(&mut frame);
        self.connection.write_all(&frame).await.unwrap();
    }

    /// The next frame, None at the end of the connection.
    async fn get(&mut self) -> Option<Got> {
        let mut head = [0; 8];
        timeout(SOON, self.connection.read_exact(&mut head)).await.expect("a frame in time").ok()?;
        let mut body = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        self.connection.read_exact(&mut body).await.unwrap();
        if head[0] & 0x80 != 0 {
            return Some((Some(u16::from_be_bytes([head[2], head[3]])), head[4], body.into()));
        }
        let stream = Bytes::copy_from_slice(&head[..4]);
        Some((None, head[4], [stream, body.into()].concat().into()))
    }

    async fn get_reply(&mut self, stream: u32) {
        let (kind, _, body) = self.get().await.unwrap();
        assert_eq!((kind, &body[..4]), (Some(2), &stream.to_be_bytes()[..]));
        assert_eq!(self.inflater.block(&body[4..]), Ok(Vec::new()));
    }

    async fn expect_data(&mut self, stream: u32, last: bool, bytes: &[u8]) {
        let (kind, flags, body) = self.get().await.unwrap();
        assert_eq!((kind, flags, &body[..4]), (None, u8::from(last), &stream.to_be_bytes()[..]));
        assert_eq!(&body[4..], bytes);
    }

    async fn expect_go_away(&mut self, why: u8) {
        let (kind, _, body) = self.get().await.unwrap();
        assert_eq!((kind, body.last()), (Some(7), Some(&why)));
        assert_eq!(self.get().await, None);
    }
}

fn asked() -> Asked {
    Asked { stdin: true, stdout: true, ..Asked::default() }
}

/// Error 1, stdin 3, stdout 5.
async fn begun() -> (Client, Channels) {
    let (mut client, server) = Client::new();
    let session = tokio::spawn(begin(server, asked(), DEADLINE));
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(stream, kind).await;
        client.get_reply(stream).await;
    }
    (client, session.await.unwrap().unwrap())
}

#[tokio::test]
async fn both_say_what_they_have_and_the_status_is_last() {
    let (mut client, mut channels) = begun().await;
    client.send(|buffer| put_data(buffer, 3, false, b"in")).await;
    client.send(|buffer| put_data(buffer, 3, true, b"put")).await;
    assert_eq!(channels.stdin.recv().await.unwrap(), "in");
    assert_eq!(channels.stdin.recv().await.unwrap(), "put");
    assert_eq!(channels.stdin.recv().await, None);
    channels.output.greet().await;
    channels.output.send(Source::Stdout, b"output").await;
    channels.output.send(Source::Stderr, b"for nobody").await;
    client.expect_data(5, false, b"output").await;
    let end = tokio::spawn(async move { channels.finish(&success()).await });
    client.expect_data(5, true, b"").await;
    client.expect_data(1, true, success().to_string().as_bytes()).await;
    client.expect_data(3, true, b"").await;
    assert!(!end.is_finished(), "the client has time to read");
    client.connection.shutdown().await.unwrap();
    client.expect_go_away(0).await;
    end.await.unwrap();
}

#[tokio::test]
async fn what_else_clients_send_is_answered_or_ignored() {
    let (mut client, mut channels) = begun().await;
    for frame in [
        // Settings, a window, headers that nobody decompresses, a going away, a kind of tomorrow, an answer to no ping.
        &b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x07\0\0\x10\0"[..],
        b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x05\0\0\x10\0",
        b"\x80\x03\0\x08\0\0\0\x06\0\0\0\x05??",
        b"\x80\x03\0\x07\0\0\0\x08\0\0\0\0\0\0\0\0",
        b"\x80\x03\0\x63\0\0\0\x01?",
        b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x02",
    ] {
        client.connection.write_all(frame).await.unwrap();
    }
    client.send(|buffer| put_ping(buffer, 7)).await;
    assert_eq!(client.get().await.unwrap(), (Some(6), 0, Bytes::from_static(&[0, 0, 0, 7])));
    client.open(7, "stderr").await;
    assert_eq!(client.get().await.unwrap(), (Some(3), 0, Bytes::from_static(&[0, 0, 0, 7, 0, 0, 0, 3])));
    // Nobody wants the output any more, nor types.
    client.send(|buffer| put_reset(buffer, 5, super::frames::Reset::Refused)).await;
    client.send(|buffer| put_reset(buffer, 3, super::frames::Reset::Refused)).await;
    assert_eq!(channels.stdin.recv().await, None);
    client.send(|buffer| put_ping(buffer, 9)).await;
    client.get().await.unwrap();
    channels.output.send(Source::Stdout, b"unwanted").await;
    let end = tokio::spawn(async move { channels.finish(&success()).await });
    client.expect_data(1, true, success().to_string().as_bytes()).await;
    drop(client);
    end.await.unwrap();
}

#[tokio::test]
async fn a_client_that_opens_too_little_is_told_what_is_missing() {
    let (mut client, server) = Client::new();
    let session = tokio::spawn(begin(server, asked(), Duration::from_millis(300)));
    for (stream, kind) in [(1, "error"), (3, "stdin")] {
        client.open(stream, kind).await;
        client.get_reply(stream).await;
    }
    // Neither of them is what was asked for.
    for (stream, kind) in [(5, "stdin"), (7, "nonsense")] {
        client.open(stream, kind).await;
        assert_eq!(client.get().await.unwrap().0, Some(3));
    }
    let (_, last, status) = client.get().await.unwrap();
    let status: Value = serde_json::from_slice(&status[4..]).unwrap();
    assert_eq!((last, &status["status"]), (1, &json!("Failure")));
    assert!(status["message"].as_str().unwrap().contains("\"streamtype: stdout\""), "{status}");
    client.expect_data(3, true, b"").await;
    client.connection.shutdown().await.unwrap();
    client.expect_go_away(0).await;
    assert!(session.await.unwrap().is_none());
}

#[tokio::test]
async fn nonsense_ends_the_connection() {
    let oversized = b"\x80\x03\0\x01\0\xff\xff\xff";
    let other_version = b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01";
    let no_headers = b"\x80\x03\0\x01\0\0\0\x0c\0\0\0\x01\0\0\0\0\0\0??";
    for nonsense in [&oversized[..], other_version, no_headers] {
        let (mut client, server) = Client::new();
        let session = tokio::spawn(begin(server, asked(), DEADLINE));
        client.connection.write_all(nonsense).await.unwrap();
        client.expect_go_away(1).await;
        assert!(session.await.unwrap().is_none(), "{nonsense:?}");
    }
    let (mut client, mut channels) = begun().await;
    client.connection.write_all(other_version).await.unwrap();
    client.expect_go_away(1).await;
    assert_eq!(channels.stdin.recv().await, None);
    // The process goes on.
    for _ in 0..1000 {
        timeout(SOON, channels.output.send(Source::Stdout, b"x")).await.unwrap();
    }
    timeout(SOON, channels.finish(&success())).await.unwrap();
}

#[tokio::test]
async fn streams_have_odd_and_growing_numbers() {
    for numbers in [&[2][..], &[3, 1], &[1, 1]] {
        let (mut client, server) = Client::new();
        let session = tokio::spawn(begin(server, asked(), DEADLINE));
        for (place, number) in numbers.iter().enumerate() {
            client.open(*number, ["error", "stdin"][place]).await;
        }
        for number in &numbers[..numbers.len() - 1] {
            client.get_reply(*number).await;
        }
        client.expect_go_away(1).await;
        assert!(session.await.unwrap().is_none());
    }
}

#[tokio::test]
async fn whoever_is_too_slow_makes_the_other_one_wait() {
    let (mut client, mut channels) = begun().await;
    let mut sent = 0;
    while timeout(Duration::from_millis(300), channels.output.send(Source::Stdout, &[0; 8192])).await.is_ok() {
        sent += 8192;
        assert!(sent < 1024 * 1024, "the output is kept for a client that does not read");
    }
    let (mut typed, piece) = (0, [0; 8192]);
    let mut frame = BytesMut::new();
    put_data(&mut frame, 3, false, &piece);
    // Some of this frame is lost with the timeout; the client says no more after it.
    while timeout(Duration::from_millis(300), client.connection.write_all(&frame)).await.is_ok() {
        typed += piece.len();
        assert!(typed < 1024 * 1024, "the input is kept for a process that does not read");
    }
    let mut read = 0;
    while read < typed {
        read += channels.stdin.recv().await.unwrap().len();
    }
    let mut got = 0;
    while got < sent {
        got += client.get().await.unwrap().2.len() - 4;
    }
}
