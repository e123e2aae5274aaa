//! A client of SPDY/3.1, no larger than the tests need, and of other flesh than what it tests: its headers are in
//! blocks that are not compressed, which every implementation must understand.

use std::collections::BTreeMap;

use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::World;

/// A connection and the streams that are open on it.
pub(crate) struct Spdy {
    pub(crate) writer: Writer,
    reader: ReadHalf<TokioIo<Upgraded>>,
}

/// Sends on streams by their names.
pub(crate) struct Writer {
    half: WriteHalf<TokioIo<Upgraded>>,
    streams: BTreeMap<&'static str, u32>,
}

/// All that came until the server ended the connection.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By stream, and whether the stream was ended.
    pub(crate) streams: BTreeMap<&'static str, (Vec<u8>, bool)>,
    /// Bodies of the answers to pings.
    pub(crate) pings: Vec<Vec<u8>>,
    /// Was the end announced?
    pub(crate) gone_away: bool,
}

/// Asks for SPDY with these protocols at a subresource of a pod.
pub(crate) async fn ask(world: &World, path: &str, protocols: &str) -> Response<Body> {
    let request = Request::post(format!("/api/v1/namespaces/default/pods/{path}"))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", protocols)
        .body(Body::empty())
        .unwrap();
    world.client.send(request).await.unwrap()
}

impl Spdy {
    /// Opens streams of these types.
    pub(crate) async fn open(world: &World, path: &str, types: &[&'static str]) -> Self {
        let answer = ask(world, path, "v5.channel.k8s.io, v4.channel.k8s.io").await;
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()[UPGRADE], "SPDY/3.1");
        assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        let connection = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let (mut reader, half) = tokio::io::split(connection);
        let mut writer = Writer { half, streams: BTreeMap::new() };
        for (number, name) in (1..).step_by(2).zip(types) {
            writer.streams.insert(name, number);
            writer.open(number, name).await;
            let (head, body) = frame(&mut reader).await.unwrap();
            assert_eq!((&head[..4], &body[..4]), (&[0x80, 3, 0, 2][..], &number.to_be_bytes()[..]), "a reply");
        }
        Self { writer, reader }
    }

    /// Reads to the end. Says goodbye when the server has ended all streams, as clients do.
    pub(crate) async fn answers(self) -> Answers {
        let Self { mut writer, mut reader } = self;
        let mut answers = Answers::default();
        for name in writer.streams.keys() {
            answers.streams.insert(name, Default::default());
        }
        while let Some((head, body)) = frame(&mut reader).await {
            match (head[0] & 0x80 != 0, head[3]) {
                (false, number) => {
                    let name = writer.streams.iter().find(|(_, known)| **known == u32::from(number)).unwrap().0;
                    let (bytes, ended) = answers.streams.get_mut(name).unwrap();
                    assert!(!*ended, "{name} goes on after its end");
                    bytes.extend(body);
                    *ended = head[4] & 1 != 0;
                    if answers.streams.values().all(|(_, ended)| *ended) {
                        writer.half.shutdown().await.unwrap();
                    }
                }
                (true, 6) => answers.pings.push(body),
                (true, 7) => answers.gone_away = true,
                (true, kind) => panic!("a frame of kind {kind}"),
            }
        }
        answers
    }
}

impl Writer {
    async fn open(&mut self, number: u32, name: &str) {
        let mut plain = Vec::from(1_u32.to_be_bytes());
        for text in ["streamtype", name] {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let length = u16::try_from(plain.len()).unwrap();
        // A stream begins by naming its dictionary; a stored block follows.
        let mut block = if number == 1 { vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2] } else { Vec::new() };
        block.push(0);
        block.extend(length.to_le_bytes());
        block.extend((!length).to_le_bytes());
        block.extend(plain);
        let mut body = Vec::from(number.to_be_bytes());
        body.extend([0; 6]);
        body.extend(block);
        self.frame([0x80, 3, 0, 1], 0, &body).await;
    }

    /// Sends on a stream, which may be its end.
    pub(crate) async fn send(&mut self, name: &str, bytes: &[u8], last: bool) {
        let number = self.streams[name];
        self.frame(number.to_be_bytes(), u8::from(last), bytes).await;
    }

    /// `id` must be odd.
    pub(crate) async fn ping(&mut self, id: u8) {
        self.frame([0x80, 3, 0, 6], 0, &[0, 0, 0, id]).await;
    }

    async fn frame(&mut self, begin: [u8; 4], flags: u8, body: &[u8]) {
        let mut frame = Vec::from(begin);
        frame.extend((u32::from(flags) << 24 | u32::try_from(body.len()).unwrap()).to_be_bytes());
        frame.extend(body);
        self.half.write_all(&frame).await.unwrap();
        self.half.flush().await.unwrap();
    }
}

/// The next frame's first 8 bytes and the rest; None at the end of the connection.
async fn frame(reader: &mut ReadHalf<TokioIo<Upgraded>>) -> Option<([u8; 8], Vec<u8>)> {
    let mut head = [0; 8];
    reader.read_exact(&mut head).await.ok()?;
    let mut body = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
    reader.read_exact(&mut body).await.unwrap();
    Some((head, body))
}
