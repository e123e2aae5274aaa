//! Many watches, some of them slow, and many writes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams, WatchParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use udn_lab_apiserver::testing::TestServer;

use super::{config_map, start};

/// What keeps a connection for 90 s may use it for 90 s.
#[tokio::test]
async fn idle_connections_stay_open() {
    let server = TestServer::start().await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::from(server.address.ip());
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: lab\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed: {}", String::from_utf8_lossy(&answer));
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(100)).await;
        tokio::time::resume();
        // Whoever waited for that moment has seen it.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_watches_delay_nobody() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("m", json!({"n": "0"}))).await.unwrap();
    // Opened and never read.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(maps.watch(&WatchParams::default(), "1").await.unwrap().boxed());
    }
    let mut watches = Vec::new();
    for _ in 0..100 {
        let stream = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        watches.push(tokio::spawn(async move {
            let mut stream = stream;
            while let Some(Ok(event)) = stream.next().await {
                if let kube::api::WatchEvent::Modified(map) = event
                    && map.data.as_ref().is_some_and(|data| data["n"] == "last")
                {
                    return true;
                }
            }
            false
        }));
    }
    let filler = "x".repeat(10_000);
    for number in 0..300 {
        let n = if number == 299 { "last".to_owned() } else { number.to_string() };
        let patch = Patch::Merge(json!({"data": {"n": n, "filler": filler}}));
        maps.patch("m", &PatchParams::default(), &patch).await.unwrap();
    }
    for watch in watches {
        assert!(tokio::time::timeout(Duration::from_secs(60), watch).await.expect("the last event").unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_patches_are_all_kept() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("m", json!({}))).await.unwrap();
    let writers = (0..40).map(|number| {
        let maps = maps.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {format!("k{number}"): "v"}}));
            maps.patch("m", &PatchParams::default(), &patch).await.unwrap();
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(maps.get("m").await.unwrap().data.unwrap().len(), 40);
}
