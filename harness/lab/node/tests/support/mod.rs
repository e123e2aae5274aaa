//! A node agent with a real API server, and a network of one bridge.

pub(crate) mod spdy;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{AttachParams, DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use udn_lab_apiserver::KubeletDialer;
use udn_lab_apiserver::testing::TestServer;
use udn_lab_node::{KUBELET_PORT, Kubelet};
use udn_lab_sys::ground::links::Links;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::pod::{AttachError, Attached, PodNetwork, Sandbox};
use udn_lab_sys::site::{NodeSite, OvnSite, Site, Tools};

/// The longest that anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One node and its API server.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) network: Arc<Bridge>,
    pub(crate) scratch: PathBuf,
    _server: TestServer,
}

impl World {
    /// Must be called in a network namespace of its own.
    pub(crate) async fn start(scratch: &Path) -> Self {
        let netns = Netns::current("node").unwrap();
        let network = Arc::new(Bridge::new(&netns).await);
        let certificate = rcgen::generate_simple_self_signed(vec!["node".into()]).unwrap();
        let (server_tls, client_tls) = tls(&certificate);
        let dialer = Arc::new(Dialer(TlsConnector::from(Arc::new(client_tls))));
        let server = TestServer::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), dialer).await.unwrap();
        let client = server.client().await.unwrap();
        let node = NodeSite {
            name: "ovn-worker".into(),
            index: 2,
            ipv4: Ipv4Addr::new(127, 0, 0, 1),
            ipv6: Ipv6Addr::LOCALHOST,
            mac: [2, 0, 0, 0, 0, 1],
            netns: netns.clone(),
            ovs_run: scratch.to_owned(),
            ovn_run: scratch.to_owned(),
        };
        let site = Site {
            nodes: vec![node.clone()],
            underlay: netns.clone(),
            external: netns,
            ovn: OvnSite { run: scratch.to_owned() },
            tools: Tools { root: "/".into() },
            image_root: image_root(scratch),
            scratch: scratch.to_owned(),
            program: "/proc/self/exe".into(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, KUBELET_PORT)).unwrap();
        let kubelet =
            Kubelet::new(client.clone(), node, Arc::new(site), Arc::clone(&network) as _, Arc::new(server_tls));
        tokio::spawn(async move { panic!("the node agent ended: {:?}", kubelet.run(listener).await) });
        Self { client, network, scratch: scratch.to_owned(), _server: server }
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// Creates a pod on the node; `spec` as in a manifest.
    pub(crate) async fn create(&self, name: &str, spec: serde_json::Value) -> Pod {
        let mut pod =
            serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec });
        pod["spec"]["nodeName"] = "ovn-worker".into();
        pod["spec"]["tolerations"] = serde_json::json!([{ "operator": "Exists" }]);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Waits until the pod is as wanted, and says how it was at the end if it never is.
    pub(crate) async fn wait(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let condition = |pod: Option<&Pod>| pod.is_some_and(&wanted);
        match tokio::time::timeout(DEADLINE, await_condition(self.pods(), name, condition)).await {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => panic!("{name}: not {what} in time: {:#?}", self.pods().get_opt(name).await.unwrap()),
        }
    }

    pub(crate) async fn ready(&self, name: &str) -> Pod {
        self.wait(name, "ready", |pod| {
            kube::runtime::wait::conditions::is_pod_running().matches_object(Some(pod)) && is_ready(pod)
        })
        .await
    }

    /// Deletes the pod and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str, grace: Option<u32>) {
        let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pods().delete(name, &parameters).await.unwrap();
        let gone = await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_none());
        if tokio::time::timeout(DEADLINE, gone).await.is_err() {
            panic!("{name}: not gone in time: {:#?}", self.pods().get_opt(name).await.unwrap());
        }
    }

    /// Runs a shell command in the pod: what it printed and its exit code.
    pub(crate) async fn sh(&self, name: &str, command: &str) -> (String, i32) {
        self.exec(name, &["sh", "-c", command], &[]).await
    }

    /// Runs a command in the pod with this input.
    pub(crate) async fn exec(&self, name: &str, command: &[&str], input: &'static [u8]) -> (String, i32) {
        let parameters = AttachParams::default().stdin(!input.is_empty()).stderr(false);
        let mut process = self.pods().exec(name, command.to_vec(), &parameters).await.unwrap();
        let stdin = process.stdin();
        let feed = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                use tokio::io::AsyncWriteExt;
                stdin.write_all(input).await.unwrap();
                stdin.shutdown().await.unwrap();
            }
        });
        let mut text = Vec::new();
        process.stdout().unwrap().read_to_end(&mut text).await.unwrap();
        let status = process.take_status().unwrap().await.unwrap();
        feed.abort();
        let code = if status.status.as_deref() == Some("Success") {
            0
        } else {
            let causes = status.details.as_ref().and_then(|details| details.causes.clone()).unwrap_or_default();
            let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
            code.and_then(|cause| cause.message.as_ref()?.parse().ok()).unwrap_or(-1)
        };
        (String::from_utf8_lossy(&text).into_owned(), code)
    }

    /// Messages of the pod's events with this reason.
    pub(crate) async fn events(&self, pod: &str, reason: &str) -> Vec<Event> {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let all = events.list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| event.involved_object.name.as_deref() == Some(pod);
        all.items.into_iter().filter(|event| about(event) && event.reason.as_deref() == Some(reason)).collect()
    }
}

/// Whether a pod's `Ready` condition holds.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready")
}

/// Whether one of a pod's conditions holds.
pub(crate) fn condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The status of the first container, as JSON.
pub(crate) fn container(pod: &Pod) -> serde_json::Value {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    serde_json::to_value(statuses.and_then(|statuses| statuses.first())).unwrap()
}

fn tls(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (rustls::ServerConfig, rustls::ClientConfig) {
    let chain: CertificateDer<'static> = certificate.cert.der().clone();
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

struct Dialer(TlsConnector);

impl KubeletDialer for Dialer {
    fn dial(&self, address: IpAddr, port: u16) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> {
        let connector = self.0.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((address, port)).await?;
            connector.connect(ServerName::try_from("node").unwrap(), stream).await
        })
    }
}

/// A root file system of this machine's programs, which nothing here can write to, and of a directory that could be
/// written to if the node agent did not prevent it.
fn image_root(scratch: &Path) -> PathBuf {
    let root = scratch.join("image");
    for directory in ["usr", "opt"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    let usr = root.join("usr");
    for arguments in [&["--bind", "/usr"][..], &["-o", "remount,bind,ro"]] {
        assert!(Command::new("mount").args(arguments).arg(&usr).status().unwrap().success());
    }
    for name in ["bin", "lib", "lib64", "sbin"].into_iter().filter(|name| usr.join(name).exists()) {
        std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name)).unwrap();
    }
    root
}

/// A network that is one bridge of the node. Pods named here have to wait until they have an annotation.
pub(crate) struct Bridge {
    links: Links,
    bridge: u32,
    attached: Mutex<HashMap<String, u8>>,
    /// Netns names of pods that were detached.
    pub(crate) detached: Mutex<Vec<String>>,
    pods: Mutex<Option<Api<Pod>>>,
}

impl Bridge {
    async fn new(netns: &Netns) -> Self {
        let links = Links::open(netns).unwrap();
        links.set_up(links.index("lo").await.unwrap()).await.unwrap();
        let bridge = links.add_bridge("br0", [2, 0, 0, 0, 0, 2]).await.unwrap();
        links.add_address(bridge, Ipv4Addr::new(10, 244, 2, 254), 24).await.unwrap();
        links.set_up(bridge).await.unwrap();
        Self { links, bridge, attached: Mutex::default(), detached: Mutex::default(), pods: Mutex::default() }
    }

    /// Pods whose name starts with `waits` stay pending until they have the label `go`.
    pub(crate) fn watch_labels(&self, pods: Api<Pod>) {
        *self.pods.lock().unwrap() = Some(pods);
    }
}

#[async_trait]
impl PodNetwork for Bridge {
    async fn attach(&self, sandbox: &Sandbox) -> Result<Attached, AttachError> {
        let pods = self.pods.lock().unwrap().clone();
        if let Some(pods) = pods.filter(|_| sandbox.pod.starts_with("waits")) {
            let pod = pods.get(&sandbox.pod).await.unwrap();
            if !pod.metadata.labels.unwrap_or_default().contains_key("go") {
                return Err(AttachError::Pending { pod: sandbox.pod.clone(), reason: "no label yet".into() });
            }
        }
        let number = {
            let mut attached = self.attached.lock().unwrap();
            let number = 2 + u8::try_from(attached.len()).unwrap();
            attached.insert(sandbox.uid.clone(), number);
            number
        };
        let address = Ipv4Addr::new(10, 244, 2, number);
        let mac = [0x0a, 0x58, 10, 244, 2, number];
        self.links.add_pair(&format!("p{number}"), self.bridge, &sandbox.netns, "eth0", mac).await.unwrap();
        let inside = Links::open(&sandbox.netns).unwrap();
        let eth0 = inside.index("eth0").await.unwrap();
        inside.add_address(eth0, address, 24).await.unwrap();
        inside.set_up(eth0).await.unwrap();
        let status = serde_json::json!([{ "name": "bridge", "interface": "eth0", "ips": [address], "default": true }]);
        Ok(Attached { ips: vec![address.into()], network_status: status })
    }

    async fn detach(&self, sandbox: &Sandbox) {
        self.detached.lock().unwrap().push(sandbox.pod.clone());
    }
}
