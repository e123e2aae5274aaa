//! Opens the stream to the agent in a guest: the console of its VM, by KubeVirt's subresource.

use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::link::{Complaint, Link, LinkError, Streams};
use crate::error::{REMEDY, innermost, is_missing_right};

/// How long the API server may take to open a console.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// The subprotocol: raw bytes in binary frames.
const PROTOCOL: &str = "plain.kubevirt.io";
/// How much is passed on at once, bytes.
const BUFFER: usize = 32 * 1024;

/// The console of a VM. It is opened again and again: the VM may be stopped, started, and move meanwhile.
pub struct Console {
    client: Client,
    namespace: String,
    vm: String,
    /// How long the guest may take to start.
    boot: Duration,
}

impl Console {
    /// The console of the VM of these names, whose guest may take `boot` to start.
    #[must_use]
    pub fn new(client: Client, namespace: &str, vm: &str, boot: Duration) -> Self {
        Self { client, namespace: namespace.into(), vm: vm.into(), boot }
    }

    async fn connect(&self) -> Result<WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, LinkError> {
        let (namespace, vm) = (&self.namespace, &self.vm);
        let failed = |why: String| LinkError::Failed(format!("console of VM {namespace}/{vm}: {why}"));
        let request = Request::get(format!(
            "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{vm}/console"
        ));
        let request = request
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, generate_key())
            .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
            .body(Body::empty())
            .map_err(|error| failed(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| failed(innermost(&error)))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let said: Option<Status> = serde_json::from_slice(&body).ok();
            if let Some(said) = said.as_ref().filter(|said| is_missing_right(said)) {
                return Err(LinkError::Gone(format!("console of VM {namespace}/{vm}: {}; {REMEDY}", said.message)));
            }
            return Err(failed(format!("{status} {}", said.map(|said| said.message).unwrap_or_default())));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| failed(error.to_string()))?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
    }
}

/// Ends with the stream.
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Link for Console {
    async fn open(&self) -> Result<Streams, LinkError> {
        let late = || LinkError::Failed(format!("console of VM {}/{} is not opened in time", self.namespace, self.vm));
        let socket = timeout(OPEN_TIMEOUT, self.connect()).await.map_err(|_| late())??;
        let (near, far) = duplex(BUFFER);
        let guard = Pump(tokio::spawn(pump(socket, far)));
        let (reader, writer) = split(near);
        Ok(Streams {
            reader: Box::new(reader),
            writer: Box::new(writer),
            guard: Box::new(guard),
            complaint: Complaint::default(),
            console: true,
        })
    }

    fn first_hello(&self) -> Duration {
        self.boot
    }
}

/// Bytes to frames and back, until either side ends.
async fn pump(socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, stream: DuplexStream) {
    let (mut sink, mut frames) = socket.split();
    let (mut reader, mut writer) = split(stream);
    let there = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..read]))).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        while let Some(Ok(frame)) = frames.next().await {
            let bytes = match frame {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                _ => continue,
            };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
    // The other end of the stream must see that it is over.
    let _ = writer.shutdown().await;
}
