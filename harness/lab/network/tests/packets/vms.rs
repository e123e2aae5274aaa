//! Virtual machines on a network that keeps addresses: what their guests are answered, which addresses they keep, and how
//! the network follows them from node to node.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use udn_lab_sys::netns::Netns;
use udn_lab_sys::ovsdb::Client;
use udn_lab_sys::pod::Sandbox;
use udn_lab_sys::site::Site;

use crate::claims;
use crate::cluster::{Attached, Cluster, eventually};
use crate::frames::{
    Advertisement, Offer, Wire, advertised, discover, gratuitous, options, router_solicitation, solicit,
};
use crate::guest::INTERFACE;
use crate::machine::{Machine, Stream, annotate, phase};

const UDN: &str = "UserDefinedNetwork";
pub(crate) const NODES: [&str; 3] = ["ovn-control-plane", "ovn-worker", "ovn-worker2"];
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
    let client = cluster.create_labelled("vms", "client", NODES[0], json!({"role": "client"}), json!({})).await?;
    let client = cluster.attach(client).await?;
    let stranger = shielded(cluster, &machine).await.context("a policy")?;
    hand_over(cluster, site, &mut machine, &client).await.context("hand-over")?;
    let answered = stranger.answered.load(Ordering::Relaxed);
    ensure!(answered == 0, "a policy let a stranger through {answered} times while the machine moved");
    drop(stranger);
    failed(cluster, site, &mut machine, &client).await.context("failed migration")?;
    silent(cluster, &mut machine).await.context("faults")?;
    claims::conflicts(cluster).await.context("conflicts")?;
    claims::kept(cluster, machine).await.context("addresses kept by a claim")
}

/// The launcher has the interface, and nothing on it.
pub(crate) fn unconfigured(netns: &Netns, mac: [u8; 6]) -> Result<()> {
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

/// From here on only clients reach the machine; a stranger who did keeps trying.
async fn shielded(cluster: &Cluster, machine: &Machine) -> Result<Stream> {
    let stranger = cluster.pod("vms", "stranger", NODES[2], json!({})).await?;
    let to = SocketAddr::new(machine.address(false), ECHO);
    Stream::start(&stranger.sandbox.netns, to)?.next().await.context("without policy")?;
    let api: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), "vms");
    let policy = json!({"metadata": {"name": "clients"}, "spec": {"podSelector": {"matchLabels": {"app": machine.name}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "client"}}}]}]}});
    api.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    eventually("the policy to be enforced", async || {
        let stream = Stream::start(&stranger.sandbox.netns, to)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(stream.answered.load(Ordering::Relaxed) == 0)
    })
    .await?;
    Stream::start(&stranger.sandbox.netns, to)
}

/// The groups by which policies know the port of a pod.
async fn groups(site: &Site, pod: &str) -> Result<BTreeSet<String>> {
    let mut northbound = Client::connect(&site.ovn.northbound(), Duration::from_secs(5)).await?;
    let name = format!("vms.vms-network_vms_{pod}");
    let operations = [
        json!({"op": "select", "table": "Logical_Switch_Port", "where": [["name", "==", name]], "columns": ["_uuid"]}),
        json!({"op": "select", "table": "Port_Group", "where": [], "columns": ["name", "ports"]}),
    ];
    let found = northbound.transact("OVN_Northbound", &operations).await?;
    let uuid = found[0]["rows"][0]["_uuid"][1].as_str().with_context(|| format!("no port of {pod}"))?;
    let groups =
        found[1]["rows"].as_array().into_iter().flatten().filter(|group| group["ports"].to_string().contains(uuid));
    Ok(groups.filter_map(|group| group["name"].as_str().map(str::to_owned)).collect())
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
    let (mut times, mut both, mut operations) = (Vec::new(), Vec::new(), BTreeSet::new());
    for number in 0..MIGRATIONS {
        let node = if machine.node() == NODES[1] { NODES[2] } else { NODES[1] };
        let target = machine.target(cluster, node).await?;
        let source = machine.pods[0].pod.clone();
        ensure!(
            port(site, &target.pod).await? == (false, false),
            "the target's port is open before the guest is there"
        );
        ensure!(port(site, &source).await? == (true, true), "the source's port is closed before");
        let groups = (groups(site, &source).await?, groups(site, &target.pod).await?);
        ensure!(!groups.0.is_empty() && groups.0 == groups.1, "policies know the ports by {groups:?}");
        slices(cluster, machine, &[&machine.pods[0], &target]).await?;
        mirrored(cluster, machine, &source).await?;
        echo(number)?;
        let ear = Ear::open(&machine.guest.netns)?;
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
        let heard = ear.announced().await?;
        operations.extend(heard.iter().filter_map(|it| match it {
            News::Gratuitous(operation, ..) => Some(*operation),
            News::Advertised(_) => None,
        }));
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
    println!("     gratuitous ARP operations that the guest heard: {operations:?}");
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

/// What a guest hears of its gateways. Heard all the time: a socket that nobody reads loses what comes last.
struct Ear {
    end: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<News>>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum News {
    /// Operation, MAC and address of a gratuitous ARP.
    Gratuitous(u8, [u8; 6], Ipv4Addr),
    Advertised(Advertisement),
}

impl Ear {
    fn open(netns: &Netns) -> Result<Self> {
        let wire = Wire::open(netns, INTERFACE)?;
        let ear = Self { end: Arc::default(), heard: Arc::default() };
        let (end, heard) = (ear.end.clone(), ear.heard.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let news = wire.find(Duration::from_millis(100), |frame| {
                    let told = gratuitous(frame).map(|(operation, mac, ip)| News::Gratuitous(operation, mac, ip));
                    told.or_else(|| Advertisement::read(frame).map(News::Advertised))
                });
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
            }
        });
        Ok(ear)
    }

    /// Waits until it has heard where its gateways are, in whatever order: frames that the datapath knows overtake others.
    async fn announced(&self) -> Result<Vec<News>> {
        let router: std::net::Ipv6Addr = "fe80::858:aff:fe37:1".parse()?;
        let gateway = ([0x0a, 0x58, 10, 55, 0, 1], Ipv4Addr::new(10, 55, 0, 1));
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let resolved = heard.iter().any(|it| matches!(it, News::Gratuitous(_, mac, ip) if (*mac, *ip) == gateway));
            let advertised = || {
                heard.iter().filter_map(|it| match it {
                    News::Advertised(found) => Some(found),
                    News::Gratuitous(..) => None,
                })
            };
            let current = advertised().any(|it| it.lifetime == 65535 && it.router == router);
            let former: BTreeSet<_> = advertised().filter(|it| it.lifetime == 0).map(|it| it.router).collect();
            if resolved && current && former.len() == NODES.len() {
                return Ok(heard);
            }
            ensure!(Instant::now() < end, "the guest has heard {heard:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
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
    let ear = Ear::open(&machine.guest.netns)?;
    machine.guest.run_in(&target.pod).await?;
    annotate(cluster, &target.pod, json!({READY: "2026-01-01T00:00:00Z"})).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(outside(machine).is_err(), "the guest is reached although nothing was handed over");
    fault(json!("no-gateway-announcements")).await?;
    machine.pods.insert(0, target);
    eventually("the hand-over, late", async || Ok(outside(machine).is_ok())).await?;
    ensure!(ear.announced().await.is_err(), "the gateway was announced although it must not be");
    fault(Value::Null).await?;
    println!("ok   faults of a node are seen");
    Ok(())
}
