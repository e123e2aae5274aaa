//! A lab joins an API server that is there already: here one without nodes or controllers, on the host's loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use libtest_mimic::Failed;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use udn_lab::{Error, Lab, Options, default_folder};
use udn_lab_apiserver::KubeletDialer;
use udn_lab_apiserver::testing::{NoKubelets, TestServer};

use crate::look;

/// Reaches a node agent on the host's loopback, by the port that its node tells.
struct Loopback;

impl KubeletDialer for Loopback {
    fn dial(&self, _: IpAddr, port: u16) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> {
        async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            // As kube-apiserver does that was not told whose certificates node agents have.
            let config = rustls::ClientConfig::builder().dangerous();
            let config = config.with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        }
        .boxed()
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn options(kubeconfig: &Path) -> Options {
    Options { api_server: Some(kubeconfig.to_owned()), ..Options::default() }
}

pub(crate) fn joins() -> Result<(), Failed> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let server = runtime
        .block_on(TestServer::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Arc::new(Loopback)))
        .unwrap();
    server.write_kubeconfig(&kubeconfig)?;
    let client = runtime.block_on(server.client()).unwrap();

    runtime.block_on(service(&client));

    let before = runtime.block_on(everything(&client));
    let lab = Lab::start(&options(&kubeconfig), &|_| {})?;
    runtime.block_on(look(&lab.kubeconfig()));
    runtime.block_on(reaches_the_api_server(&client));
    assert_eq!(lab.status()?.problems, Vec::<String>::new());
    assert_eq!(lab.status()?.server, format!("https://{}", server.address));
    // Two labs would be the same nodes.
    let second = Lab::start(&options(&kubeconfig), &|_| {}).unwrap_err();
    assert!(matches!(&second, Error::Ground(_)), "{second:?}");
    assert!(second.to_string().contains("is alive"), "{second}");
    runtime.block_on(look(&lab.kubeconfig()));

    assert_eq!(lab.stop()?, Vec::<String>::new());
    assert_eq!(runtime.block_on(everything(&client)), before, "something is left at the API server");

    // What others need stays, and is told.
    let lab = Lab::start(&options(&kubeconfig), &|_| {})?;
    runtime.block_on(network(&client));
    let kept = lab.stop()?;
    // The network, and what was made of it.
    let kinds = ["network-attachment-definitions.k8s.cni.cncf.io", "userdefinednetworks.k8s.ovn.org"];
    assert_eq!(kept, kinds.map(|kind| format!("kind {kind}: there is default/n")));

    // A server that does not get through to the node agents could run no probe.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let deaf = runtime.block_on(TestServer::start_with(address, Arc::new(NoKubelets))).unwrap();
    let of_deaf = folder.path().join("deaf");
    deaf.write_kubeconfig(&of_deaf)?;
    let client = runtime.block_on(deaf.client()).unwrap();
    runtime.block_on(service(&client));
    let before = runtime.block_on(everything(&client));
    let refusal = Lab::start(&options(&of_deaf), &|_| {}).unwrap_err().to_string();
    assert!(refusal.contains("--kubelet-preferred-address-types"), "{refusal}");
    assert_eq!(runtime.block_on(everything(&client)), before, "something is left at the API server");

    let gone = Lab::start(&options(&folder.path().join("none")), &|_| {}).unwrap_err();
    assert!(matches!(gone, Error::Kubeconfig { .. }), "{gone:?}");
    let address = server.address;
    drop(server);
    // It ends in its own time.
    let ended = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < ended, "the server does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let silent = Lab::start(&options(&kubeconfig), &|_| {}).unwrap_err();
    assert!(matches!(silent, Error::Join { .. }), "{silent:?}");
    assert!(udn_lab::list(&default_folder()).iter().all(|lab| !lab.name().starts_with(&own_prefix())));
    Ok(())
}

fn own_prefix() -> String {
    format!("run-{}-", std::process::id())
}

/// As every API server makes it.
async fn service(client: &Client) {
    let service = json!({
        "metadata": {"name": "kubernetes"},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:10:96::1"], "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}]},
    });
    let services = Api::<Service>::namespaced(client.clone(), "default");
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
}

/// A pod of the lab gets through to the API server by its service, wherever that says that it is.
async fn reaches_the_api_server(client: &Client) {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let pod = json!({
        "metadata": {"name": "asks"},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "asks", "image": "registry.k8s.io/e2e-test-images/agnhost:2.45",
                "command": ["sh", "-c", "curl -sk --retry 20 --retry-connrefused --retry-delay 1 https://10.96.0.1/version"]}]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let ended = |pod: Option<&Pod>| {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.clone());
        phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
    };
    let wait = kube::runtime::wait::await_condition(pods.clone(), "asks", ended);
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("the pod ends").unwrap();
    let said = pods.logs("asks", &Default::default()).await.unwrap();
    assert!(said.contains("gitVersion"), "{said}");
    pods.delete("asks", &Default::default()).await.unwrap();
    let gone = kube::runtime::wait::await_condition(pods, "asks", |pod: Option<&Pod>| pod.is_none());
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.expect("the pod goes").unwrap();
}

async fn network(client: &Client) {
    let udn = json!({
        "metadata": {"name": "n"},
        "spec": {"topology": "Layer2", "layer2": {"role": "Secondary", "subnets": ["10.9.0.0/16"]}},
    });
    let networks = Api::<udn_api::UserDefinedNetwork>::namespaced(client.clone(), "default");
    networks.create(&PostParams::default(), &serde_json::from_value(udn).unwrap()).await.unwrap();
}

/// Names of all that a lab makes.
async fn everything(client: &Client) -> Vec<String> {
    let mut names = Vec::new();
    macro_rules! of {
        ($($kind:ty),*) => {$(
            let all = Api::<$kind>::all(client.clone()).list(&ListParams::default()).await.unwrap();
            names.extend(all.iter().map(|one| {
                format!("{} {}/{}", stringify!($kind), one.namespace().unwrap_or_default(), one.name_any())
            }));
        )*};
    }
    of!(Namespace, Node, Pod, Service, Lease, CustomResourceDefinition);
    names.sort();
    names
}
