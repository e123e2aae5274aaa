//! Exec and logs, with a stand-in for a kubelet behind the proxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{AttachParams, LogParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use udn_lab_apiserver::KubeletDialer;
use udn_lab_apiserver::testing::TestServer;

use super::{refusal, scheduled};

/// Dials the stand-in whatever the node's address is.
struct Dialer {
    kubelet: SocketAddr,
    connector: TlsConnector,
}

impl KubeletDialer for Dialer {
    fn dial(&self, node_address: IpAddr, port: u16) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> {
        assert_eq!((node_address, port), ("172.18.0.3".parse().unwrap(), 10250));
        let (kubelet, connector) = (self.kubelet, self.connector.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(kubelet).await?;
            connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
        })
    }
}

/// Echoes stdin in upper case, with the query on stderr.
async fn exec(mut socket: WebSocket, query: String) {
    let stderr = [&[2], query.as_bytes()].concat();
    socket.send(Message::Binary(stderr.into())).await.unwrap();
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            Message::Binary(data) if data.first() == Some(&0) => {
                let answer = [&[1], data[1..].to_ascii_uppercase().as_slice()].concat();
                socket.send(Message::Binary(answer.into())).await.unwrap();
            }
            // v5: stream 0 is closed.
            Message::Binary(data) if *data == [255, 0] => break,
            _ => {}
        }
    }
    let status = json!({"metadata": {}, "status": "Success"}).to_string();
    socket.send(Message::Binary([&[3], status.as_bytes()].concat().into())).await.unwrap();
    // kubectl takes any other closure for an accident.
    socket.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await.unwrap();
    while let Some(Ok(_)) = socket.recv().await {}
}

async fn kubelet() -> (SocketAddr, TlsConnector) {
    let logs = async |Path((namespace, pod, container)): Path<(String, String, String)>,
                      RawQuery(query): RawQuery|
           -> Response {
        if container == "missing" {
            return (http::StatusCode::BAD_REQUEST, "no such container").into_response();
        }
        format!("{namespace} {pod} {container} {}\n", query.unwrap_or_default()).into_response()
    };
    let router = Router::new()
        .route(
            "/exec/{namespace}/{pod}/{container}",
            any(async |RawQuery(query): RawQuery, upgrade: WebSocketUpgrade| {
                let query = query.unwrap_or_default();
                upgrade.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"]).on_upgrade(|socket| exec(socket, query))
            }),
        )
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der: CertificateDer<'static> = certificate.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let service = TowerToHyperService::new(router);
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (address, TlsConnector::from(Arc::new(client)))
}

async fn start() -> (TestServer, kube::Client) {
    let (kubelet, connector) = kubelet().await;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = TestServer::start_with(loopback, Arc::new(Dialer { kubelet, connector })).await.unwrap();
    let client = server.client().await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &super::from(json!({"metadata": {"name": "ovn-worker"}}))).await.unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.3"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
    nodes.patch_status("ovn-worker", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    (server, client)
}

#[tokio::test]
async fn exec_is_carried_both_ways() {
    let (_server, client) = start().await;
    let pods = scheduled(&client, "p").await;
    let params = AttachParams::default().stdin(true).stderr(true);
    let mut process = pods.exec("p", ["cat", "a b"], &params).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    let (mut stdout, mut stderr) = (process.stdout().unwrap(), process.stderr().unwrap());
    let large = "abc".repeat(100_000);
    let write = async {
        stdin.write_all(large.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
    };
    let mut out = Vec::new();
    let read = stdout.read_to_end(&mut out);
    let (_, read) = tokio::join!(write, read);
    read.unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), large.to_uppercase());
    let mut err = String::new();
    stderr.read_to_string(&mut err).await.unwrap();
    assert!(err.contains("command=cat&command=a+b") && err.contains("stdin=true"), "{err}");
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let (_server, client) = start().await;
    let pods = scheduled(&client, "p").await;
    let params = LogParams { follow: true, tail_lines: Some(3), ..LogParams::default() };
    assert_eq!(pods.logs("p", &params).await.unwrap(), "default p c follow=true&tailLines=3\n");
    let params = LogParams { container: Some("none".into()), ..LogParams::default() };
    let refused = refusal(pods.logs("p", &params).await);
    assert_eq!((refused.code, refused.message.as_str()), (400, "container none is not valid for pod p"));
}

#[tokio::test]
async fn a_pod_without_a_node_cannot_be_entered() {
    let (server, client) = start().await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &super::pod("p")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    server.write_kubeconfig(&kubeconfig).unwrap();
    let output = tokio::process::Command::new("kubectl")
        .args(["exec", "p", "--", "true"])
        .env("KUBECONFIG", &kubeconfig)
        .output()
        .await
        .expect("kubectl is installed");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("pod p does not have a host assigned"), "{text}");
}

#[tokio::test]
async fn kubectl_execs_and_reads_logs() {
    let (server, client) = start().await;
    scheduled(&client, "p").await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    server.write_kubeconfig(&kubeconfig).unwrap();
    let run = async |line: &[&str], input: &[u8]| {
        let mut child = tokio::process::Command::new("kubectl")
            .args(line)
            .env("KUBECONFIG", &kubeconfig)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["exec", "-i", "p", "--", "cat"], b"hello").await, "HELLO");
    assert_eq!(run(&["logs", "p"], b"").await, "default p c \n");
}
