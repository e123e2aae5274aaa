//! A guest's console, spoken to as any client of KubeVirt would.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// How soon the guest is greeted again: it answers once it has booted.
const GREET: Duration = Duration::from_millis(100);

/// An open console.
pub(crate) struct Console {
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    received: Vec<u8>,
    next: u64,
}

impl Console {
    /// Opens the console of an instance.
    pub(crate) async fn open(client: &Client, namespace: &str, name: &str) -> Self {
        let path = format!(
            "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}/console"
        );
        let request = http::Request::get(path)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "plain.kubevirt.io")
            .body(Body::empty())
            .unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "plain.kubevirt.io");
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Self { socket, received: Vec::new(), next: 1 }
    }

    async fn send(&mut self, line: &Value) {
        self.socket.send(Message::Binary(format!("\n{line}\n").into())).await.unwrap();
    }

    /// The next line that is JSON; none once the console has ended.
    async fn line(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if let Ok(value) = serde_json::from_slice(&line) {
                    return Some(value);
                }
            }
            match self.socket.next().await? {
                Ok(Message::Binary(bytes)) => self.received.extend_from_slice(&bytes),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Greets until the guest answers.
    pub(crate) async fn hello(&mut self, deadline: Duration) -> Value {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            assert!(tokio::time::Instant::now() < end, "the guest says nothing within {deadline:?}");
            self.send(&json!({"id": 0, "op": "greet"})).await;
            if let Ok(answer) = tokio::time::timeout(GREET, self.line()).await {
                let answer = answer.expect("the console has ended");
                if answer["body"]["hello"].is_object() {
                    return answer["body"]["hello"].clone();
                }
            }
        }
    }

    /// Asks the agent for something.
    async fn ask(&mut self, op: Value) -> Value {
        if self.next == 1 {
            self.send(&json!({"id": 0, "op": {"attach": {"session": 7, "after": 0}}})).await;
        }
        let id = self.next;
        self.next += 1;
        self.send(&json!({"id": id, "op": op})).await;
        let answer = async {
            loop {
                let line = self.line().await.expect("the console has ended");
                if line["id"] == id {
                    return line["body"].clone();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), answer).await.expect("no answer")
    }

    /// What the guest knows of its network, once it has `address`.
    pub(crate) async fn configured(&mut self, address: &str) -> String {
        let mut facts = String::new();
        for _ in 0..100 {
            facts = self.ask(json!("facts")).await.to_string();
            if facts.contains(address) {
                break;
            }
            tokio::time::sleep(GREET).await;
        }
        facts
    }

    /// Makes the agent return what it gets on a port.
    pub(crate) async fn listen(&mut self, port: u16) {
        let listen = json!({"listen": {"transport": "tcp", "port": port, "identity": "guest", "echo": true}});
        assert_eq!(self.ask(listen).await, "done");
    }
}
