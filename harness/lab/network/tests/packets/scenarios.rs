//! What must hold.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use udn_lab_network::probe_source;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::site::{EXTERNAL_V4, EXTERNAL_V6, Site};

use crate::cluster::{Attached, Cluster, eventually, socket};
use crate::policies;
use crate::probe::{Cell, Wanted, listen, settle};
use crate::{services, vms};

const UDN: &str = "UserDefinedNetwork";
const CUDN: &str = "ClusterUserDefinedNetwork";
const NAD: &str = "NetworkAttachmentDefinition";
const NODES: [&str; 3] = ["ovn-control-plane", "ovn-worker", "ovn-worker2"];
const HOST_PORT: u16 = 9999;

/// What needs nothing of each other.
pub(crate) const PARTS: [&str; 3] = ["networks", "policies", "vms"];

pub(crate) async fn run(site: Arc<Site>, part: &str) -> Result<()> {
    let cluster = Cluster::start(site.clone()).await?;
    listen(&site.external, "external", 8080)?;
    for node in &site.nodes {
        listen(&node.netns, &node.name, HOST_PORT)?;
    }
    listen(&site.nodes[0].netns, "api-server", 6443)?;
    if part == "vms" {
        return vms::run(&cluster, &site).await.context("virtual machines");
    }
    networks(&cluster).await?;
    let pods = cluster
        .pods(&[
            ("blue", "b0", NODES[0]),
            ("blue", "b1", NODES[1]),
            ("blue", "b2", NODES[1]),
            ("blue", "b3", NODES[2]),
            ("green", "g0", NODES[0]),
            ("green", "g1", NODES[1]),
            ("green", "g2", NODES[1]),
            ("green", "g3", NODES[2]),
            ("red", "r0", NODES[0]),
            ("red", "r1", NODES[1]),
            ("yellow", "y1", NODES[1]),
            ("yellow", "y2", NODES[2]),
            ("gray", "a1", NODES[1]),
            ("gray", "a2", NODES[2]),
            ("plain", "p0", NODES[0]),
            ("plain", "p1", NODES[1]),
            ("plain", "p2", NODES[2]),
        ])
        .await?;
    if part == "policies" {
        return policies::run(&cluster, &site, &pods).await.context("policies");
    }
    let started = Instant::now();
    cluster.pod("plain", "alone", NODES[1], json!({})).await?;
    println!("one more pod in {} ms", started.elapsed().as_millis());
    addressing(&pods)?;
    let mut problems = Vec::new();
    for (what, cells) in matrices(&site, &pods) {
        if let Err(error) = settle(what, &cells, 2) {
            problems.push(error.to_string());
        }
    }
    for result in [
        services::services(&cluster, &pods).await.context("services"),
        open_default_ports(&cluster, &pods).await.context("open default ports"),
        multi_homing(&cluster, &pods).await.context("multi-homing"),
        static_requests(&cluster).await.context("static requests"),
        lifecycle(&cluster, &pods).await.context("life cycle"),
        recreate(&cluster).await.context("recreate"),
        nothing_circulates(&site).await.context("frames that were flooded"),
    ] {
        match result {
            Ok(()) => {}
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// What nodes flood (answers of neighbours) leaves the bridge once. A frame that finds its way back in circulates for ever,
/// at tens of thousands a second, and takes a processor.
async fn nothing_circulates(site: &Site) -> Result<()> {
    let [asked, asking] = [&site.nodes[0], &site.nodes[1]];
    // That node asks for its neighbour anew, and is answered.
    asking.netns.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.send_to(b"who is there", SocketAddr::new(asked.ipv6.into(), 9))
    })??;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for node in &site.nodes {
        let before = passed_again(&node.netns)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let frames = passed_again(&node.netns)? - before;
        ensure!(frames < 1_000, "{}: {frames} frames came back within 500 ms, and nobody sends", node.name);
    }
    Ok(())
}

/// Frames that a node's br-ex has taken in once more, so far.
fn passed_again(node: &Netns) -> Result<u64> {
    let interfaces = node.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let again = interfaces.lines().find_map(|line| line.trim().strip_prefix("again1:")).context("no again1")?;
    again.split_whitespace().nth(1).context("no count of frames")?.parse().context("frames of again1")
}

async fn networks(cluster: &Cluster) -> Result<()> {
    let layer3 = json!({"topology": "Layer3", "layer3": {"role": "Primary", "subnets": [
        {"cidr": "103.103.0.0/16", "hostSubnet": 24}, {"cidr": "2014:100:200::/60"}]}});
    for name in ["blue", "green", "red", "yellow", "gray"] {
        cluster.tenant(name).await?;
    }
    cluster.namespace("plain", json!({})).await?;
    let started = Instant::now();
    cluster.create(UDN, Some("blue"), "blue-network", layer3.clone()).await?;
    cluster.ready(UDN, Some("blue"), "blue-network").await?;
    println!("a Layer3 UDN was ready in {} ms", started.elapsed().as_millis());
    cluster.create(UDN, Some("green"), "green-network", layer3).await?;
    let cluster_wide = json!({
        "namespaceSelector": {"matchExpressions": [{"key": "tenant", "operator": "In", "values": ["red", "yellow"]}]},
        "network": {"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["192.168.0.0/16", "fd10::/64"]}},
    });
    cluster.create(CUDN, None, "happy-tenant", cluster_wide).await?;
    let gray = json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["172.16.0.0/16", "2014:100:300::/60"],
        "defaultGatewayIPs": ["172.16.0.3", "2014:100:300::3"], "reservedSubnets": ["172.16.1.0/24"],
        "infrastructureSubnets": ["172.16.0.0/30", "2014:100:300::/122"]}});
    cluster.create(UDN, Some("gray"), "gray-network", gray).await?;
    cluster.ready(UDN, Some("green"), "green-network").await?;
    cluster.ready(UDN, Some("gray"), "gray-network").await?;
    cluster.ready(CUDN, None, "happy-tenant").await?;
    cluster.condition(CUDN, None, "happy-tenant", "NetworkCreated", "True", "following namespaces: [red, yellow]").await
}

fn addressing(pods: &[Attached]) -> Result<()> {
    for pod in pods.iter().filter(|pod| pod.sandbox.namespace != "plain") {
        let status = pod.status.as_array().context("network-status is no list")?;
        ensure!(status[1]["interface"] == "ovn-udn1" && status[1]["default"] == true, "{}: {}", pod.name, pod.status);
        ensure!(
            pod.own_addresses().len() == 2 && pod.default_addresses().len() == 2,
            "{}: {:?}",
            pod.name,
            pod.addresses
        );
    }
    let gray = pods.iter().find(|pod| pod.name == "gray/a1").context("no gray pod")?;
    let inside: ipnet::IpNet = "172.16.0.0/16".parse()?;
    let never: [ipnet::IpNet; 2] = ["172.16.0.0/30".parse()?, "172.16.1.0/24".parse()?];
    ensure!(
        inside.contains(&gray.own_addresses()[0]) && !never.iter().any(|net| net.contains(&gray.own_addresses()[0])),
        "{:?}",
        gray.addresses
    );
    let routes = pod_routes(&gray.sandbox.netns)?;
    ensure!(
        routes.contains("ovn-udn1\t00000000\t030010AC"),
        "default route of gray/a1 is not via 172.16.0.3:\n{routes}"
    );
    Ok(())
}

/// The kernel's table: interface, destination and gateway in hexadecimal.
fn pod_routes(netns: &Netns) -> Result<String> {
    Ok(netns.run(|| std::fs::read_to_string("/proc/thread-self/net/route"))??)
}

/// Which network a pod's namespace is on.
fn network(pod: &Attached) -> &str {
    match pod.sandbox.namespace.as_str() {
        "red" | "yellow" => "happy-tenant",
        other => other,
    }
}

pub(crate) fn cell(from: &Attached, to: SocketAddr, wanted: Wanted) -> Cell {
    Cell { from: from.name.clone(), netns: from.sandbox.netns.clone(), source: None, to, wanted }
}

fn matrices(site: &Site, pods: &[Attached]) -> Vec<(&'static str, Vec<Cell>)> {
    let tenants = || pods.iter().filter(|pod| network(pod) != "plain");
    let plain = || pods.iter().filter(|pod| network(pod) == "plain");
    let api: Vec<SocketAddr> =
        ["10.96.0.1:443", "[fd00:10:96::1]:443", "172.18.0.2:6443", "[fc00:f853:ccd:e793::2]:6443"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
    let mut own = Vec::new();
    let mut foreign = Vec::new();
    let mut default_address = Vec::new();
    for from in tenants() {
        for to in tenants() {
            for address in to.own_addresses() {
                let target = socket(address, 8080);
                // blue and green overlap: the same address there is the caller's own network's pod.
                let same_here =
                    tenants().find(|pod| network(pod) == network(from) && pod.own_addresses().contains(address));
                match same_here {
                    Some(answers) => own.push(cell(from, target, Wanted::Open(answers.name.clone()))),
                    None => foreign.push(cell(from, target, Wanted::Closed)),
                }
            }
        }
        for to in pods.iter().filter(|to| to.name != from.name) {
            default_address
                .extend(to.default_addresses().iter().map(|address| cell(from, socket(address, 8080), Wanted::Closed)));
        }
    }
    let mut from_default = Vec::new();
    for from in plain() {
        for to in tenants() {
            for address in to.own_addresses().iter().chain(to.default_addresses()) {
                from_default.push(cell(from, socket(address, 8080), Wanted::Closed));
            }
        }
    }
    let mut default_open = Vec::new();
    for to in plain() {
        for address in to.default_addresses() {
            let wanted = || Wanted::Open(to.name.clone());
            default_open.extend(plain().map(|from| cell(from, socket(address, 8080), wanted())));
            default_open
                .extend(site.nodes.iter().map(|node| host(&node.name, &node.netns, socket(address, 8080), wanted())));
        }
    }
    let mut hosts = Vec::new();
    let mut probes = Vec::new();
    for node in &site.nodes {
        for to in tenants() {
            for address in to.own_addresses().iter().chain(to.default_addresses()) {
                hosts.push(host(&node.name, &node.netns, socket(address, 8080), Wanted::Closed));
            }
        }
        for to in pods.iter().filter(|pod| pod.sandbox.node == node.name) {
            for address in to.default_addresses() {
                let mut probe = host("kubelet", &node.netns, socket(address, 8080), Wanted::Open(to.name.clone()));
                probe.source = Some(probe_source(node.index, *address));
                probes.push(probe);
            }
        }
    }
    let mut from_outside = Vec::new();
    for to in pods {
        for address in to.own_addresses().iter().chain(to.default_addresses()) {
            from_outside.push(host("external", &site.external, socket(address, 8080), Wanted::Closed));
        }
    }
    let mut egress = Vec::new();
    let mut api_server = Vec::new();
    let mut host_ports = Vec::new();
    for from in pods {
        let Some(node) = site.node(&from.sandbox.node) else { continue };
        for (external, source) in
            [(IpAddr::from(EXTERNAL_V4), IpAddr::from(node.ipv4)), (EXTERNAL_V6.into(), node.ipv6.into())]
        {
            egress.push(cell(from, socket(&external, 8080), Wanted::From("external".into(), source)));
        }
        api_server.extend(api.iter().map(|to| cell(from, *to, Wanted::Open("api-server".into()))));
        for other in &site.nodes {
            for address in [IpAddr::from(other.ipv4), other.ipv6.into()] {
                let open = Wanted::Open(other.name.clone());
                let wanted = if other.name == node.name && network(from) != "plain" { Wanted::Rejected } else { open };
                host_ports.push(cell(from, socket(&address, HOST_PORT), wanted));
            }
        }
    }
    vec![
        ("same network, overlap included", own),
        ("default network", default_open),
        ("egress with the node's address", egress),
        ("API server", api_server),
        ("host ports", host_ports),
        ("kubelet probes", probes),
        ("other networks", foreign),
        ("default-network addresses", default_address),
        ("default pods to tenants", from_default),
        ("hosts to tenants", hosts),
        ("external to pods", from_outside),
    ]
}

pub(crate) fn host(name: &str, netns: &Netns, to: SocketAddr, wanted: Wanted) -> Cell {
    Cell { from: name.into(), netns: netns.clone(), source: None, to, wanted }
}

async fn open_default_ports(cluster: &Cluster, pods: &[Attached]) -> Result<()> {
    let find = |name: &str| pods.iter().find(|pod| pod.name == name).context("no such pod");
    let (target, client) = (find("blue/b1")?, find("plain/p2")?);
    listen(&target.sandbox.netns, "blue/b1", 8081)?;
    let cells = |open: bool| -> Vec<Cell> {
        let mut cells = Vec::new();
        for address in target.default_addresses() {
            let wanted = if open { Wanted::Open(target.name.clone()) } else { Wanted::Closed };
            cells.push(cell(client, socket(address, 8080), wanted.clone()));
            cells.push(host("ovn-worker", &cluster.site.nodes[1].netns, socket(address, 8080), wanted));
            cells.push(cell(client, socket(address, 8081), Wanted::Closed));
        }
        cells
    };
    cluster.annotate_pod(target, json!({"k8s.ovn.org/open-default-ports": "- protocol: tcp\n  port: 8080\n"})).await?;
    settle("open default port", &cells(true), 5)?;
    cluster.annotate_pod(target, json!({"k8s.ovn.org/open-default-ports": "- protocol: ppp\n  port: 8080\n"})).await?;
    cluster.event("blue", "ErrorUpdatingResource", "invalid protocol ppp").await?;
    settle("malformed opens nothing", &cells(false), 5)
}

async fn multi_homing(cluster: &Cluster, pods: &[Attached]) -> Result<()> {
    for (name, topology, subnets) in
        [("two", "layer2", "10.50.0.0/16,fd50::/64"), ("three", "layer3", "10.60.0.0/16/24,fd60::/48/64")]
    {
        let config = json!({"cniVersion": "1.1.0", "type": "ovn-k8s-cni-overlay", "name": format!("hand-made-{name}"),
            "netAttachDefName": format!("blue/{name}"), "topology": topology, "subnets": subnets});
        cluster.create(NAD, Some("blue"), name, json!({"config": config.to_string()})).await?;
    }
    let wants = json!({"k8s.v1.cni.cncf.io/networks": "two,three"});
    let one = cluster.pod("blue", "m1", NODES[1], wants.clone()).await?;
    let other = cluster.pod("blue", "m2", NODES[2], wants).await?;
    let mut cells = Vec::new();
    for key in ["blue/two", "blue/three", "blue/blue-network"] {
        cells.extend(
            other.addresses[key]
                .iter()
                .map(|address| cell(&one, socket(address, 8080), Wanted::Open(other.name.clone()))),
        );
    }
    let bystander = pods.iter().find(|pod| pod.name == "blue/b1").context("no pod b1")?;
    cells.extend(
        other.addresses["blue/two"].iter().map(|address| cell(bystander, socket(address, 8080), Wanted::Closed)),
    );
    cells.extend(bystander.default_addresses().iter().map(|address| cell(&one, socket(address, 8080), Wanted::Closed)));
    ensure!(one.status[2]["interface"] == "net1" && one.status[2].get("default").is_none(), "{}", one.status);
    let routes = pod_routes(&one.sandbox.netns)?;
    let defaults = routes.lines().filter(|line| line.split_whitespace().nth(1) == Some("00000000"));
    ensure!(defaults.count() == 1, "more than one default route:\n{routes}");
    settle("secondary networks", &cells, 2)
}

async fn static_requests(cluster: &Cluster) -> Result<()> {
    // One address of each family, or the request is refused.
    let request = |ip: &str, mac: &str| {
        json!({"v1.multus-cni.io/default-network": json!([{"name": "default", "namespace": "ovn-kubernetes",
        "ips": [ip, format!("2014:100:300::7:{}/60", ip.split(['.', '/']).nth(3).unwrap_or_default())], "mac": mac}]).to_string()})
    };
    let first = cluster.pod("gray", "s1", NODES[1], request("172.16.1.7/16", "02:03:04:05:06:07")).await?;
    ensure!(first.own_addresses().contains(&"172.16.1.7".parse()?), "{:?}", first.addresses);
    cluster.create_pod("gray", "s2", NODES[2], request("172.16.1.7/16", "02:03:04:05:06:08")).await?;
    cluster.event("gray", "ErrorAllocatingPod", "provided IP is already allocated").await?;
    let same_mac = cluster.create_pod("gray", "s3", NODES[2], request("172.16.1.9/16", "02:03:04:05:06:07")).await?;
    cluster.event("gray", "ErrorAllocatingPod", "MAC address already in use").await?;
    cluster.delete_pod(&first.sandbox).await?;
    let third = cluster.attach(same_mac).await.context("the MAC was not freed with its pod")?;
    ensure!(third.own_addresses().contains(&"172.16.1.9".parse()?), "{:?}", third.addresses);
    println!("ok   static requests and duplicates");
    Ok(())
}

async fn lifecycle(cluster: &Cluster, pods: &[Attached]) -> Result<()> {
    let layer2 = json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["10.77.0.0/16"]}});
    cluster.create(UDN, Some("blue"), "second", layer2.clone()).await?;
    let words = "primary network already exist in namespace \"blue\": \"blue-network\"";
    cluster.condition(UDN, Some("blue"), "second", "NetworkCreated", "False", words).await?;
    cluster.create(UDN, Some("plain"), "unlabelled", layer2.clone()).await?;
    cluster
        .condition(UDN, Some("plain"), "unlabelled", "NetworkCreated", "False", "invalid primary network state")
        .await?;

    let small = json!({"topology": "Layer3", "layer3": {"role": "Primary", "subnets": [{"cidr": "10.88.0.0/24", "hostSubnet": 25}]}});
    cluster.tenant("small").await?;
    cluster.create(UDN, Some("small"), "small", small).await?;
    cluster.condition(UDN, Some("small"), "small", "NetworkAllocationSucceeded", "False", "check UDN events").await?;
    cluster.event("small", "NetworkAllocationFailed", "error allocating network").await?;

    grow(cluster, pods).await?;

    // A pod of a labelled namespace waits for its network.
    cluster.tenant("late").await?;
    let waiting = cluster.create_pod("late", "w1", NODES[1], json!({})).await?;
    let refused = udn_lab_sys::pod::PodNetwork::attach(&cluster.network, &waiting).await;
    ensure!(
        matches!(&refused, Err(udn_lab_sys::pod::AttachError::Pending { reason, .. }) if reason.contains("invalid primary")),
        "{refused:?}"
    );
    cluster.create(UDN, Some("late"), "late", layer2).await?;
    let waiting = cluster.attach(waiting).await?;

    // A network in use stays.
    cluster.delete(UDN, Some("late"), "late").await?;
    let words =
        "failed to delete NetworkAttachmentDefinition [late/late]: network in use by the following pods: [late/w1]";
    cluster.condition(UDN, Some("late"), "late", "NetworkCreated", "False", words).await?;
    ensure!(cluster.get(NAD, Some("late"), "late").await?.is_some(), "the definition went under a pod");
    cluster.delete_pod(&waiting.sandbox).await?;
    eventually("the UDN to go with its last pod", async || Ok(cluster.get(UDN, Some("late"), "late").await?.is_none()))
        .await?;
    ensure!(cluster.get(NAD, Some("late"), "late").await?.is_none());

    // Membership follows labels.
    cluster.tenant("purple").await?;
    cluster.label_namespace("purple", json!({"tenant": "red"})).await?;
    cluster.condition(CUDN, None, "happy-tenant", "NetworkCreated", "True", "[purple, red, yellow]").await?;
    let joined = cluster.pod("purple", "u1", NODES[2], json!({})).await?;
    let red = pods.iter().find(|pod| pod.name == "red/r1").context("no red pod")?;
    let cells: Vec<Cell> = red
        .own_addresses()
        .iter()
        .map(|address| cell(&joined, socket(address, 8080), Wanted::Open(red.name.clone())))
        .collect();
    settle("a namespace that joined", &cells, 2)?;
    cluster.delete_pod(&joined.sandbox).await?;
    cluster.label_namespace("purple", json!({"tenant": "none"})).await?;
    cluster.condition(CUDN, None, "happy-tenant", "NetworkCreated", "True", "namespaces: [red, yellow]").await?;
    eventually("the definition to leave", async || {
        Ok(cluster.get(NAD, Some("purple"), "happy-tenant").await?.is_none())
    })
    .await?;
    println!("ok   life cycle");
    Ok(())
}

/// A Layer3 network is given more subnets: nodes and pods keep theirs, and all still works.
async fn grow(cluster: &Cluster, pods: &[Attached]) -> Result<()> {
    let subnets = json!([{"cidr": "103.103.0.0/16", "hostSubnet": 24}, {"cidr": "2014:100:200::/60"}, {"cidr": "104.104.0.0/16", "hostSubnet": 24}]);
    cluster.patch(UDN, Some("green"), "green-network", json!({"spec": {"layer3": {"subnets": subnets}}})).await?;
    let find = |name: &str| pods.iter().find(|pod| pod.name == name).context("no such pod");
    let (from, to) = (find("green/g1")?, find("green/g3")?);
    eventually("the definition to follow", async || {
        let definition = cluster.get(NAD, Some("green"), "green-network").await?;
        Ok(definition
            .is_some_and(|it| it.data["spec"]["config"].as_str().is_some_and(|text| text.contains("104.104.0.0/16"))))
    })
    .await?;
    let newcomer = cluster.pod("green", "g4", NODES[2], json!({})).await?;
    let mut cells = vec![cell(from, socket(&EXTERNAL_V4.into(), 8080), Wanted::Open("external".into()))];
    for (to, name) in [(to, &to.name), (&newcomer, &newcomer.name)] {
        cells.extend(
            to.own_addresses().iter().map(|address| cell(from, socket(address, 8080), Wanted::Open(name.clone()))),
        );
    }
    settle("a network that grew", &cells, 3)
}

/// A network under the name of one that is gone works, the API server included.
async fn recreate(cluster: &Cluster) -> Result<()> {
    let spec = json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["10.99.0.0/16"]}});
    cluster.tenant("again").await?;
    for round in 0..3 {
        cluster.create(UDN, Some("again"), "again", spec.clone()).await?;
        cluster.ready(UDN, Some("again"), "again").await?;
        let pods = cluster.pods(&[("again", "x1", NODES[1]), ("again", "x2", NODES[2])]).await?;
        let mut cells = vec![
            cell(&pods[0], "10.96.0.1:443".parse()?, Wanted::Open("api-server".into())),
            cell(&pods[0], socket(&EXTERNAL_V4.into(), 8080), Wanted::Open("external".into())),
        ];
        cells.extend(
            pods[1]
                .own_addresses()
                .iter()
                .map(|address| cell(&pods[0], socket(address, 8080), Wanted::Open(pods[1].name.clone()))),
        );
        settle(&format!("recreated network, round {round}"), &cells, 2)?;
        for pod in &pods {
            cluster.delete_pod(&pod.sandbox).await?;
        }
        cluster.delete(UDN, Some("again"), "again").await?;
        eventually("the network to go", async || Ok(cluster.get(UDN, Some("again"), "again").await?.is_none())).await?;
    }
    Ok(())
}
