//! Virtual machines on a network that keeps addresses: what their guests are answered, which addresses they keep, and how
//! the network follows them from node to node.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use udn_api::IpamClaim;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::ovsdb::Client;
use udn_lab_sys::pod::Sandbox;
use udn_lab_sys::site::Site;

use crate::cluster::{Attached, Cluster, eventually};
use crate::frames::{
    Advertisement, Offer, Wire, advertised, discover, gratuitous, options, router_solicitation, solicit,
};
use crate::guest::{Guest, INTERFACE};

const UDN: &str = "UserDefinedNetwork";
const NODES: [&str; 3] = ["ovn-control-plane", "ovn-worker", "ovn-worker2"];
const NETWORK: &str = "vms_vms-network";
const ECHO: u16 = 7007;
const READY: &str = "kubevirt.io/migration-target-ready-timestamp";
const FAULTS: &str = "udn-conformance.io/lab-network-faults";
/// Migrations there and back.
const MIGRATIONS: usize = 10;

pub(crate) async fn run(cluster: &Cluster, site: &Site) -> Result<()> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "kube-system");
    let dns = json!({"metadata": {"name": "kube-dns"}, "spec": {"clusterIPs": ["10.96.0.10", "fd00:10:96::a"],
        "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 53, "protocol": "UDP"}]}});
    services.create(&PostParams::default(), &serde_json::from_value(dns)?).await.context("creating kube-dns")?;
    cluster.tenant("vms").await?;
    let spec = json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["10.55.0.0/16", "fd55::/64"],
        "ipam": {"lifecycle": "Persistent"}}});
    cluster.create(UDN, Some("vms"), "vms-network", spec).await?;
    cluster.ready(UDN, Some("vms"), "vms-network").await?;
    let mut machine = Machine::new(cluster, "db").await?;
    answered(&machine)?;
    configured(&machine).await?;
    let client = cluster.pod("vms", "client", NODES[0], json!({})).await?;
    hand_over(cluster, site, &mut machine, &client).await.context("hand-over")?;
    failed(cluster, site, &mut machine, &client).await.context("failed migration")?;
    silent(cluster, &mut machine).await.context("faults")?;
    conflicts(cluster).await.context("conflicts")?;
    kept(cluster, machine).await.context("addresses kept by a claim")
}

/// A virtual machine, the pods that run it last first.
struct Machine {
    name: &'static str,
    guest: Guest,
    mac: [u8; 6],
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    pods: Vec<Sandbox>,
    made: usize,
}

fn claims(cluster: &Cluster) -> Api<IpamClaim> {
    Api::namespaced(cluster.client.clone(), "vms")
}

async fn claim(cluster: &Cluster, vm: &str) -> Result<()> {
    let claim = json!({"apiVersion": "k8s.cni.cncf.io/v1alpha1", "kind": "IPAMClaim",
        "metadata": {"name": format!("{vm}.default")}, "spec": {"network": NETWORK, "interface": "ovn-udn1"}});
    claims(cluster).create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    Ok(())
}

async fn launcher(cluster: &Cluster, vm: &str, pod: &str, node: &str, request: Value) -> Result<Sandbox> {
    let labels = json!({"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": vm, "app": vm});
    let mut annotations = json!({"k8s.ovn.org/primary-udn-ipamclaim": format!("{vm}.default")});
    if !request.is_null() {
        annotations["v1.multus-cni.io/default-network"] = json!([request]).to_string().into();
    }
    cluster.create_labelled("vms", pod, node, labels, annotations).await
}

/// What the annotation says of the pod's place on the network.
async fn entry(cluster: &Cluster, pod: &str) -> Result<Value> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "vms");
    let pod = api.get(pod).await?;
    let text = pod.annotations().get("k8s.ovn.org/pod-networks").context("no pod-networks")?;
    let all: Value = serde_json::from_str(text)?;
    Ok(all["vms/vms-network"].clone())
}

fn parsed<T: std::str::FromStr>(list: &Value) -> Vec<T> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect()
}

impl Machine {
    async fn new(cluster: &Cluster, name: &'static str) -> Result<Self> {
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
        unconfigured(&sandbox.netns, mac)?;
        guest.prepare(&sandbox).await?;
        guest.run_in(&sandbox.pod).await?;
        let (addresses, gateways) = (parsed(&entry["ip_addresses"]), parsed(&entry["gateway_ips"]));
        Ok(Self { name, guest, mac, addresses, gateways, pods: vec![sandbox], made: 1 })
    }

    /// A migration's target, as far as it is before the guest runs there.
    async fn target(&mut self, cluster: &Cluster, node: &str) -> Result<Sandbox> {
        let name = format!("virt-launcher-{}-{}", self.name, self.made);
        self.made += 1;
        let sandbox = launcher(cluster, self.name, &name, node, Value::Null).await?;
        cluster.attach_silent(&sandbox).await?;
        self.guest.prepare(&sandbox).await?;
        Ok(sandbox)
    }

    fn address(&self, ipv6: bool) -> IpAddr {
        self.addresses.iter().map(IpNet::addr).find(|it| it.is_ipv6() == ipv6).unwrap_or(IpAddr::from([0; 4]))
    }

    fn node(&self) -> &str {
        self.pods.first().map_or("", |pod| pod.node.as_str())
    }
}

async fn annotate(cluster: &Cluster, pod: &str, annotations: Value) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "vms");
    api.patch(pod, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": annotations}}))).await?;
    Ok(())
}

async fn phase(cluster: &Cluster, pod: &str, phase: &str) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "vms");
    api.patch_status(pod, &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": phase}}))).await?;
    Ok(())
}

/// The launcher has the interface, and nothing on it.
fn unconfigured(netns: &Netns, mac: [u8; 6]) -> Result<()> {
    let (link, v6, routes) = netns.run(|| -> std::io::Result<_> {
        // /sys is that of another namespace; /proc is this one's.
        let v6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?;
        let routes = std::fs::read_to_string("/proc/thread-self/net/route")?;
        let link = nix::ifaddrs::getifaddrs()?.filter(|it| it.interface_name == "ovn-udn1").collect::<Vec<_>>();
        Ok((link, v6, routes))
    })??;
    ensure!(!v6.contains("ovn-udn1") && !routes.contains("ovn-udn1"), "not empty:\n{v6}{routes}");
    let found = link.iter().filter_map(|it| it.address?.as_link_addr()?.addr()).next();
    ensure!(found == Some(mac), "MAC {found:?} instead of {mac:?}");
    ensure!(link.len() == 1, "it has addresses: {link:?}");
    ensure!(link.iter().all(|it| it.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP)), "not up: {link:?}");
    Ok(())
}

/// OVN answers what a guest asks when it boots.
fn answered(machine: &Machine) -> Result<()> {
    let wire = Wire::open(&machine.guest.netns, INTERFACE)?;
    let offer = wire.ask(&discover(machine.mac), "DHCPv4 DISCOVER", Offer::read)?;
    ensure!(IpAddr::from(offer.address) == machine.address(false), "{offer:?}");
    ensure!(offer.server_mac == [0x0a, 0x58, 169, 254, 1, 1], "{offer:?}");
    for (option, wanted) in [
        (1, vec![255, 255, 0, 0]),
        (3, vec![10, 55, 0, 1]),
        (6, vec![10, 96, 0, 10]),
        (12, b"db".to_vec()),
        (26, 1400_u16.to_be_bytes().to_vec()),
        (51, 3500_u32.to_be_bytes().to_vec()),
        (54, vec![169, 254, 1, 1]),
    ] {
        ensure!(offer.option(option)? == wanted, "option {option} is not {wanted:?}: {offer:?}");
    }
    let answer = wire.ask(&solicit(machine.mac), "DHCPv6 SOLICIT", advertised)?;
    let option = |list: &[(u16, Vec<u8>)], number: u16| {
        list.iter().find(|(it, _)| *it == number).map(|(_, value)| value.clone())
    };
    let association = option(&answer, 3).context("no IA_NA")?;
    let address = options(&association[12..]).and_then(|inner| option(&inner, 5)).context("no address")?;
    ensure!(IpAddr::from(<[u8; 16]>::try_from(&address[..16])?) == machine.address(true), "{address:?}");
    let dns: std::net::Ipv6Addr = "fd00:10:96::a".parse()?;
    ensure!(option(&answer, 23) == Some(dns.octets().to_vec()), "{answer:?}");
    ensure!(option(&answer, 39).is_some_and(|name| name.windows(2).any(|it| it == b"db")), "{answer:?}");
    let found = wire.ask(&router_solicitation(machine.mac), "router solicitation", Advertisement::read)?;
    // 0a:58:0a:37:00:01; addresses are managed, the router has low preference.
    ensure!(found.router == "fe80::858:aff:fe37:1".parse::<std::net::Ipv6Addr>()?, "{found:?}");
    ensure!(found.flags & 0x80 != 0 && found.flags & 0x18 == 0x18 && found.lifetime > 0, "{found:?}");
    ensure!(found.mtu == Some(1400), "{found:?}");
    println!("ok   DHCPv4, DHCPv6 and router advertisements are answered");
    Ok(())
}

/// The guest has what it was told, and echoes from here on.
async fn configured(machine: &Machine) -> Result<()> {
    machine.guest.configure(&machine.addresses, &machine.gateways).await?;
    let (stream, datagrams) = machine
        .guest
        .netns
        .run(|| std::io::Result::Ok((TcpListener::bind(("::", ECHO))?, UdpSocket::bind(("::", ECHO))?)))??;
    std::thread::spawn(move || {
        for mut stream in stream.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..length], from);
        }
    });
    Ok(())
}

/// Datagrams there and back, all the time.
struct Stream {
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    /// When the last answer came, in microseconds since `begun`.
    last: Arc<AtomicU64>,
    begun: Instant,
}

impl Stream {
    fn start(netns: &Netns, to: SocketAddr) -> Result<Self> {
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
    async fn next(&self) -> Result<Duration> {
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

/// The port of a pod in OVN: whether it is enabled, and its addresses.
async fn port(site: &Site, pod: &str) -> Result<(bool, bool)> {
    let mut northbound = Client::connect(&site.ovn.northbound(), Duration::from_secs(5)).await?;
    let name = format!("vms.vms-network_vms_{pod}");
    let select = json!({"op": "select", "table": "Logical_Switch_Port", "where": [["name", "==", name]], "columns": ["enabled", "addresses"]});
    let found = northbound.transact("OVN_Northbound", &[select]).await?;
    let row = found[0]["rows"].get(0).with_context(|| format!("no port of {pod}"))?;
    let (enabled, addresses) = (row["enabled"] != json!(false), row["addresses"] != json!(["set", []]));
    Ok((enabled, addresses))
}

async fn slices(cluster: &Cluster, machine: &Machine, pods: &[&Sandbox]) -> Result<()> {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|pod| {
            json!({"addresses": ["10.244.9.9"], "conditions": {"ready": true}, "nodeName": pod.node,
            "targetRef": {"kind": "Pod", "name": pod.pod, "namespace": "vms"}})
        })
        .collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "db-v4",
        "labels": {"kubernetes.io/service-name": machine.name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": ECHO, "protocol": "TCP"}], "endpoints": endpoints});
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "vms");
    api.patch("db-v4", &PatchParams::apply("packets").force(), &Patch::Apply(slice)).await?;
    Ok(())
}

/// The mirrored slice comes to name this pod and no other, under the guest's address.
async fn mirrored(cluster: &Cluster, machine: &Machine, pod: &str) -> Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "vms");
    let mut last = Vec::new();
    let address = machine.address(false).to_string();
    eventually(&format!("the mirrored slice to name {pod}"), async || {
        let all = api.list(&Default::default()).await?;
        let mirror = all.iter().find(|it| it.labels().contains_key("k8s.ovn.org/service-name"));
        last = mirror.map(|it| it.endpoints.clone()).unwrap_or_default();
        let names: Vec<&str> = last.iter().filter_map(|it| it.target_ref.as_ref()?.name.as_deref()).collect();
        Ok(names == [pod] && last[0].addresses == [address.clone()])
    })
    .await
    .with_context(|| format!("it was {last:?}"))
}

/// Migrations there and back: TCP goes on, and datagrams flow again soon after the guest runs at the target.
async fn hand_over(cluster: &Cluster, site: &Site, machine: &mut Machine, client: &Attached) -> Result<()> {
    let streams =
        [false, true].map(|ipv6| Stream::start(&client.sandbox.netns, SocketAddr::new(machine.address(ipv6), ECHO)));
    let [v4, v6] = streams;
    let (v4, v6) = (v4?, v6?);
    v4.next().await.context("IPv4, before")?;
    v6.next().await.context("IPv6, before")?;
    let to = SocketAddr::new(machine.address(false), ECHO);
    let mut tcp = client.sandbox.netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)))??;
    tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut echo = move |word: usize| -> Result<()> {
        let word = format!("{word:08}");
        tcp.write_all(word.as_bytes())?;
        let mut back = [0; 8];
        tcp.read_exact(&mut back).context("the TCP connection")?;
        ensure!(back == word.as_bytes(), "{back:?}");
        Ok(())
    };
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "vms");
    let service = json!({"metadata": {"name": machine.name}, "spec": {"selector": {"app": machine.name}, "ports": [{"port": 80, "targetPort": ECHO}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let (mut times, mut both) = (Vec::new(), Vec::new());
    for number in 0..MIGRATIONS {
        let node = if machine.node() == NODES[1] { NODES[2] } else { NODES[1] };
        let target = machine.target(cluster, node).await?;
        let source = machine.pods[0].pod.clone();
        ensure!(
            port(site, &target.pod).await? == (false, false),
            "the target's port is open before the guest is there"
        );
        ensure!(port(site, &source).await? == (true, true), "the source's port is closed before");
        slices(cluster, machine, &[&machine.pods[0], &target]).await?;
        mirrored(cluster, machine, &source).await?;
        echo(number)?;
        let wire = Wire::open(&machine.guest.netns, INTERFACE)?;
        machine.guest.run_in(&target.pod).await?;
        // Datagrams that were under way come back, or never.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let written = Instant::now();
        annotate(cluster, &target.pod, json!({READY: "2026-01-01T00:00:00Z"})).await?;
        v4.next().await?;
        times.push(written.elapsed());
        v6.next().await?;
        both.push(written.elapsed());
        echo(number)?;
        announced(&wire)?;
        ensure!(port(site, &target.pod).await? == (true, true), "the target's port is closed");
        ensure!(port(site, &source).await? == (false, false), "the source's port is open still");
        mirrored(cluster, machine, &target.pod).await?;
        // The former pod lingers for one migration: what ends late must not take anything with it.
        machine.pods.insert(0, target);
        if machine.pods.len() > 2 {
            let oldest = machine.pods.pop().context("no pod")?;
            phase(cluster, &oldest.pod, "Succeeded").await?;
            cluster.delete_pod(&oldest).await?;
            machine.guest.forget(&oldest.pod);
        } else {
            phase(cluster, &source, "Succeeded").await?;
        }
        v4.next().await.context("after the source has gone")?;
        outside(machine)?;
    }
    for (what, mut times) in [("IPv4", times), ("both families", both)] {
        times.sort_unstable();
        println!(
            "ok   hand-over, {what}: median {} ms of {MIGRATIONS} from the annotation's write to a datagram answered [{}–{}]",
            times[times.len() / 2].as_millis(),
            times[0].as_millis(),
            times[times.len() - 1].as_millis()
        );
    }
    println!("     {} of {} datagrams came back", v4.answered.load(Ordering::Relaxed), v4.sent.load(Ordering::Relaxed));
    Ok(())
}

/// The guest reaches what is outside, with its node's address.
fn outside(machine: &Machine) -> Result<()> {
    use udn_lab_sys::site::EXTERNAL_V4;
    let to = SocketAddr::new(EXTERNAL_V4.into(), 8080);
    let answer = machine.guest.netns.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let answer = answer.with_context(|| format!("the guest on {} to the outside", machine.node()))?;
    // ovn-worker is 172.18.0.3, ovn-worker2 172.18.0.4.
    let source = if machine.node() == NODES[1] { "172.18.0.3" } else { "172.18.0.4" };
    ensure!(answer == format!("external {source}"), "the guest on {} leaves as {answer:?}", machine.node());
    Ok(())
}

/// The guest hears where its gateways are, in whatever order: frames that the datapath knows overtake others.
fn announced(wire: &Wire) -> Result<()> {
    let gateway = ([0x0a, 0x58, 10, 55, 0, 1], Ipv4Addr::new(10, 55, 0, 1));
    let router: std::net::Ipv6Addr = "fe80::858:aff:fe37:1".parse()?;
    let (mut resolved, mut current) = (false, false);
    let mut former = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(2);
    while !(resolved && current && former.len() == NODES.len()) {
        ensure!(Instant::now() < end, "gratuitous ARP {resolved}, current gateway {current}, former {former:?}");
        let heard = wire.find(Duration::from_millis(100), |frame| match gratuitous(frame) {
            Some((_, mac, address)) => ((mac, address) == gateway).then_some(None),
            None => Advertisement::read(frame).map(Some),
        });
        match heard {
            Some(None) => resolved = true,
            Some(Some(found)) if found.lifetime == 65535 => current = found.router == router,
            Some(Some(found)) if found.lifetime == 0 => {
                former.insert(found.router);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A migration that comes to nothing: nobody notices.
async fn failed(cluster: &Cluster, site: &Site, machine: &mut Machine, client: &Attached) -> Result<()> {
    let stream = Stream::start(&client.sandbox.netns, SocketAddr::new(machine.address(false), ECHO))?;
    stream.next().await?;
    let node = if machine.node() == NODES[1] { NODES[2] } else { NODES[1] };
    for deleted in [false, true] {
        let target = machine.target(cluster, node).await?;
        if !deleted {
            phase(cluster, &target.pod, "Failed").await?;
        }
        cluster.delete_pod(&target).await?;
        machine.guest.forget(&target.pod);
        eventually("the target's port to go", async || Ok(port(site, &target.pod).await.is_err())).await?;
        cluster.network.settle().await?;
        ensure!(port(site, &machine.pods[0].pod).await? == (true, true), "the source was touched");
        stream.next().await?;
        outside(machine)?;
    }
    let (answered, sent) = (stream.answered.load(Ordering::Relaxed), stream.sent.load(Ordering::Relaxed));
    ensure!(answered * 100 >= sent * 98, "{answered} of {sent} datagrams came back");
    println!("ok   failed migrations: {answered} of {sent} datagrams came back");
    Ok(())
}

/// What a node is told to do wrong is seen.
async fn silent(cluster: &Cluster, machine: &mut Machine) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = if machine.node() == NODES[1] { NODES[2] } else { NODES[1] };
    let fault = async |faults: Value| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {FAULTS: faults}}}));
        nodes.patch(node, &PatchParams::default(), &patch).await
    };
    fault(json!("no-hand-over,no-gateway-announcements")).await?;
    let target = machine.target(cluster, node).await?;
    let wire = Wire::open(&machine.guest.netns, INTERFACE)?;
    machine.guest.run_in(&target.pod).await?;
    annotate(cluster, &target.pod, json!({READY: "2026-01-01T00:00:00Z"})).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(outside(machine).is_err(), "the guest is reached although nothing was handed over");
    fault(json!("no-gateway-announcements")).await?;
    machine.pods.insert(0, target);
    eventually("the hand-over, late", async || Ok(outside(machine).is_ok())).await?;
    ensure!(announced(&wire).is_err(), "the gateway was announced although it must not be");
    fault(Value::Null).await?;
    println!("ok   faults of a node are seen");
    Ok(())
}

async fn condition(cluster: &Cluster, vm: &str, reason: &str, words: &str) -> Result<()> {
    let mut last = None;
    eventually(&format!("the claim of {vm} to say {reason}"), async || {
        last = claims(cluster).get(&format!("{vm}.default")).await?.status;
        let conditions = last.iter().flat_map(|status| &status.conditions);
        Ok(conditions
            .filter(|it| it.type_ == "IPsAllocated")
            .any(|it| it.reason == reason && it.message.contains(words)))
    })
    .await
    .with_context(|| format!("its status was {last:?}"))
}

/// Requests that cannot be met are conditions of claims, and pods that wait.
async fn conflicts(cluster: &Cluster) -> Result<()> {
    let element =
        |ips: &[&str], mac: &str| json!({"name": "default", "namespace": "ovn-kubernetes", "ips": ips, "mac": mac});
    let taken = ["10.55.7.7/16", "fd55::77/64"];
    claim(cluster, "one").await?;
    let one = launcher(cluster, "one", "virt-launcher-one", NODES[1], element(&taken, "02:03:04:05:06:07")).await?;
    cluster.attach_silent(&one).await?;
    condition(cluster, "one", "SuccessfulAllocation", "IP addresses successfully allocated").await?;
    let status = claims(cluster).get("one.default").await?.status.context("no status")?;
    ensure!(status.ips == taken && status.owner_pod.as_ref().is_some_and(|it| it.name == one.pod), "{status:?}");
    let cases = [
        ("two", element(&taken, "02:03:04:05:06:08"), "IPAddressConflict", "provided IP is already allocated"),
        (
            "three",
            element(&["10.55.7.8/16", "fd55::78/64"], "02:03:04:05:06:07"),
            "MACAddressConflict",
            "MAC address already in use",
        ),
        (
            "four",
            element(&["10.55.7.9/16"], "02:03:04:05:06:09"),
            "InternalError",
            "requested IPs family types must match network's IP family configuration",
        ),
    ];
    for (vm, request, reason, words) in cases {
        claim(cluster, vm).await?;
        launcher(cluster, vm, &format!("virt-launcher-{vm}"), NODES[2], request).await?;
        condition(cluster, vm, reason, words).await?;
        cluster.event("vms", "ErrorAllocatingPod", words).await?;
        let status = claims(cluster).get(&format!("{vm}.default")).await?.status.context("no status")?;
        ensure!(status.ips.is_empty(), "{status:?}");
    }
    // Both wait for what the first has: the MAC goes with its pod, the addresses with its claim.
    cluster.delete_pod(&one).await?;
    condition(cluster, "three", "SuccessfulAllocation", "").await?;
    condition(cluster, "two", "IPAddressConflict", "").await?;
    claims(cluster).delete("one.default", &DeleteParams::default()).await?;
    condition(cluster, "two", "SuccessfulAllocation", "").await?;
    println!("ok   conflicts are conditions, and end with what they are about");
    Ok(())
}

/// The machine is stopped and started: it has its addresses again, and nobody else got them.
async fn kept(cluster: &Cluster, machine: Machine) -> Result<()> {
    let claimed = claims(cluster).get("db.default").await?.status.context("no status")?.ips;
    let had: Vec<String> = machine.addresses.iter().map(ToString::to_string).collect();
    ensure!(claimed == had, "{claimed:?} instead of {had:?}");
    for pod in &machine.pods {
        cluster.delete_pod(pod).await?;
    }
    let other = cluster.pod("vms", "passer-by", NODES[1], json!({})).await?;
    ensure!(
        other.own_addresses().iter().all(|it| !had.iter().any(|kept| kept.starts_with(&format!("{it}/")))),
        "given away"
    );
    let again = launcher(cluster, machine.name, "virt-launcher-db-again", NODES[2], Value::Null).await?;
    cluster.attach_silent(&again).await?;
    let entry = entry(cluster, &again.pod).await?;
    ensure!(parsed::<String>(&entry["ip_addresses"]) == had, "{entry}");
    println!("ok   a claim keeps its addresses without a pod");
    Ok(())
}
