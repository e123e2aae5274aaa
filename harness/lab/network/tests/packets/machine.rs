//! A virtual machine on a network that keeps addresses: its claim, the pods that run it, and its guest.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use udn_api::IpamClaim;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::pod::Sandbox;

use crate::cluster::Cluster;
use crate::guest::Guest;
use crate::vms::NODES;

const NETWORK: &str = "vms_vms-network";

/// A virtual machine, the pods that run it last first.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) guest: Guest,
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) pods: Vec<Sandbox>,
    made: usize,
}

pub(crate) fn claims(cluster: &Cluster) -> Api<IpamClaim> {
    Api::namespaced(cluster.client.clone(), "vms")
}

pub(crate) async fn claim(cluster: &Cluster, vm: &str) -> Result<()> {
    let claim = json!({"apiVersion": "k8s.cni.cncf.io/v1alpha1", "kind": "IPAMClaim",
        "metadata": {"name": format!("{vm}.default")}, "spec": {"network": NETWORK, "interface": "ovn-udn1"}});
    claims(cluster).create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    Ok(())
}

pub(crate) async fn launcher(cluster: &Cluster, vm: &str, pod: &str, node: &str, request: Value) -> Result<Sandbox> {
    let labels = json!({"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": vm, "app": vm});
    let mut annotations = json!({"k8s.ovn.org/primary-udn-ipamclaim": format!("{vm}.default")});
    if !request.is_null() {
        annotations["v1.multus-cni.io/default-network"] = json!([request]).to_string().into();
    }
    cluster.create_labelled("vms", pod, node, labels, annotations).await
}

/// What the annotation says of the pod's place on the network.
pub(crate) async fn entry(cluster: &Cluster, pod: &str) -> Result<Value> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "vms");
    let pod = api.get(pod).await?;
    let text = pod.annotations().get("k8s.ovn.org/pod-networks").context("no pod-networks")?;
    let all: Value = serde_json::from_str(text)?;
    Ok(all["vms/vms-network"].clone())
}

pub(crate) fn parsed<T: std::str::FromStr>(list: &Value) -> Vec<T> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect()
}

impl Machine {
    pub(crate) async fn new(cluster: &Cluster, name: &'static str) -> Result<Self> {
        claim(cluster, name).await?;
        let sandbox = launcher(cluster, name, &format!("virt-launcher-{name}-0"), NODES[1], Value::Null).await?;
        let started = Instant::now();
        cluster.attach_silent(&sandbox).await?;
        println!("a launcher was attached in {} ms", started.elapsed().as_millis());
        let entry = entry(cluster, &sandbox.pod).await?;
        let mac: Vec<u8> = entry["mac_address"]
            .as_str()
            .unwrap_or_default()
            .split(':')
            .filter_map(|it| u8::from_str_radix(it, 16).ok())
            .collect();
        let mac: [u8; 6] = mac.try_into().ok().context("no MAC")?;
        let mut guest = Guest::new(name, mac).await?;
        crate::vms::unconfigured(&sandbox.netns, mac)?;
        guest.prepare(&sandbox).await?;
        guest.run_in(&sandbox.pod).await?;
        let (addresses, gateways) = (parsed(&entry["ip_addresses"]), parsed(&entry["gateway_ips"]));
        Ok(Self { name, guest, mac, addresses, gateways, pods: vec![sandbox], made: 1 })
    }

    /// A migration's target, as far as it is before the guest runs there.
    pub(crate) async fn target(&mut self, cluster: &Cluster, node: &str) -> Result<Sandbox> {
        let name = format!("virt-launcher-{}-{}", self.name, self.made);
        self.made += 1;
        let sandbox = launcher(cluster, self.name, &name, node, Value::Null).await?;
        cluster.attach_silent(&sandbox).await?;
        self.guest.prepare(&sandbox).await?;
        Ok(sandbox)
    }

    pub(crate) fn address(&self, ipv6: bool) -> IpAddr {
        self.addresses.iter().map(IpNet::addr).find(|it| it.is_ipv6() == ipv6).unwrap_or(IpAddr::from([0; 4]))
    }

    pub(crate) fn node(&self) -> &str {
        self.pods.first().map_or("", |pod| pod.node.as_str())
    }
}

pub(crate) async fn annotate(cluster: &Cluster, pod: &str, annotations: Value) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "vms");
    api.patch(pod, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": annotations}}))).await?;
    Ok(())
}

pub(crate) async fn phase(cluster: &Cluster, pod: &str, phase: &str) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "vms");
    api.patch_status(pod, &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": phase}}))).await?;
    Ok(())
}

/// Datagrams there and back, all the time.
pub(crate) struct Stream {
    end: Arc<AtomicBool>,
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) answered: Arc<AtomicU64>,
    /// When the last answer came, in microseconds since `begun`.
    last: Arc<AtomicU64>,
    begun: Instant,
}

impl Stream {
    pub(crate) fn start(netns: &Netns, to: SocketAddr) -> Result<Self> {
        let socket = netns.run(|| UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }))??;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stream = Self {
            end: Arc::default(),
            sent: Arc::default(),
            answered: Arc::default(),
            last: Arc::default(),
            begun: Instant::now(),
        };
        let (sender, end, sent) = (socket.try_clone()?, stream.end.clone(), stream.sent.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let _ = sender.send(&sent.fetch_add(1, Ordering::Relaxed).to_be_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (end, answered, last, begun) =
            (stream.end.clone(), stream.answered.clone(), stream.last.clone(), stream.begun);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !end.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                    last.store(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
            }
        });
        Ok(stream)
    }

    /// Waits for an answer that comes after this call; how long it took.
    pub(crate) async fn next(&self) -> Result<Duration> {
        let now = self.begun.elapsed();
        let wait = async {
            loop {
                let last = Duration::from_micros(self.last.load(Ordering::Relaxed));
                if last > now {
                    return last - now;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.context("no datagram came back within 10 s")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
