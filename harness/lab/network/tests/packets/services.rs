//! Services: who reaches whose by which address, as a real cluster was measured to do.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use udn_lab_sys::site::Site;

use crate::cluster::{Attached, Cluster, eventually, socket};
use crate::probe::{Cell, Wanted, settle};

/// What the API server, kubelets and the endpoints controller do on a cluster.
pub(crate) async fn api_server(client: &Client, site: &Site) -> Result<()> {
    let service = json!({"clusterIPs": ["10.96.0.1", "fd00:10:96::1"], "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"name": "https", "port": 443, "targetPort": 6443}]});
    create(client, "default", "kubernetes", service).await?;
    let node = site.nodes.first().context("no nodes")?;
    let port = json!([{"name": "https", "port": 6443, "protocol": "TCP"}]);
    for (family, address) in [("IPv4", IpAddr::from(node.ipv4)), ("IPv6", node.ipv6.into())] {
        let slice = json!({
            "metadata": {"generateName": "kubernetes-", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": family, "ports": port, "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        });
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    }
    Ok(())
}

async fn create(client: &Client, namespace: &str, name: &str, spec: serde_json::Value) -> Result<Service> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
    api.create(&PostParams::default(), &service).await.with_context(|| format!("creating service {namespace}/{name}"))
}

/// A service of one pod, with slices as the endpoints controller writes them.
struct Target<'a> {
    /// The pod's name.
    pod: &'a Attached,
    network: &'static str,
    cluster_ips: Vec<IpAddr>,
    node_port: u16,
    external: [IpAddr; 2],
}

async fn target<'a>(
    client: &Client,
    pod: &'a Attached,
    network: &'static str,
    number: u16,
    local: bool,
) -> Result<Target<'a>> {
    let namespace = &pod.sandbox.namespace;
    let name = format!("svc{number}");
    let node_port = 30000 + number;
    let external: [IpAddr; 2] =
        [format!("172.18.255.{number}").parse()?, format!("fc00:f853:ccd:e793::ff:{number}").parse()?];
    let policy = if local { "Local" } else { "Cluster" };
    let spec = json!({"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "externalIPs": external,
        "externalTrafficPolicy": policy, "selector": {"pod": name}, "ports": [{"port": 80, "targetPort": 8080, "nodePort": node_port}]});
    let service = create(client, namespace, &name, spec).await?;
    let owner =
        json!([{"apiVersion": "v1", "kind": "Service", "name": name, "uid": service.uid(), "controller": true}]);
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    for address in pod.default_addresses() {
        let slice = json!({
            "metadata": {"generateName": format!("{name}-"), "ownerReferences": owner, "labels": {
                "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
            "addressType": if address.is_ipv6() { "IPv6" } else { "IPv4" },
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": pod.sandbox.node,
                "targetRef": {"kind": "Pod", "name": pod.sandbox.pod, "namespace": namespace}}],
        });
        api.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    }
    let spec = service.spec.unwrap_or_default();
    let cluster_ips = spec.cluster_ips.iter().flatten().map(|ip| ip.parse()).collect::<Result<_, _>>()?;
    Ok(Target { pod, network, cluster_ips, node_port, external })
}

fn network(pod: &Attached) -> &str {
    match pod.sandbox.namespace.as_str() {
        "red" | "yellow" => "happy-tenant",
        other => other,
    }
}

pub(crate) async fn services(cluster: &Cluster, pods: &[Attached]) -> Result<()> {
    let find = |name: &str| pods.iter().find(|pod| pod.name == name).context("no such pod");
    let client = &cluster.client;
    let targets = [
        target(client, find("blue/b1")?, "blue", 231, false).await?,
        target(client, find("red/r1")?, "happy-tenant", 232, false).await?,
        target(client, find("plain/p1")?, "plain", 233, false).await?,
        target(client, find("green/g3")?, "green", 234, true).await?,
    ];
    let announcers = announcers(client, &targets).await?;
    let clients: Vec<&Attached> = [
        "blue/b0",
        "blue/b1",
        "blue/b3",
        "green/g1",
        "red/r0",
        "yellow/y1",
        "yellow/y2",
        "plain/p0",
        "plain/p1",
        "plain/p2",
    ]
    .iter()
    .map(|name| find(name))
    .collect::<Result<_>>()?;
    let mut cells = Vec::new();
    for (target, announcer) in targets.iter().zip(&announcers) {
        for from in &clients {
            cells.extend(of_pod(&cluster.site, from, target, announcer));
        }
        cells.extend(of_external(&cluster.site, target));
    }
    settle("services", &cells, 5)?;
    slices(cluster, &targets[0]).await?;
    conflict(cluster, &targets[0]).await
}

/// The node that announces each target's addresses, as an event says.
async fn announcers(client: &Client, targets: &[Target<'_>]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for target in targets {
        let name = format!("svc{}", target.node_port - 30000);
        let api: Api<Event> = Api::namespaced(client.clone(), &target.pod.sandbox.namespace);
        let mut node = None;
        eventually(&format!("an announcer of {name}"), async || {
            let events = api.list(&Default::default()).await?;
            let event = events.into_iter().find(|event| {
                event.reason.as_deref() == Some("nodeAssigned") && event.involved_object.name.as_deref() == Some(&name)
            });
            node = event.and_then(|event| event.message?.split('"').nth(1).map(str::to_owned));
            Ok(node.is_some())
        })
        .await?;
        found.extend(node);
    }
    let local = found.last().map(String::as_str);
    ensure!(local == Some("ovn-worker2"), "a local service is announced where its pod is, not by {local:?}");
    Ok(found)
}

fn of_pod(site: &Site, from: &Attached, target: &Target<'_>, announcer: &str) -> Vec<Cell> {
    let own = network(from) == target.network;
    let local = target.network == "green";
    let open = || Wanted::Open(target.pod.name.clone());
    let mut cells = Vec::new();
    let mut add = |to: SocketAddr, wanted: Wanted| {
        cells.push(Cell { from: from.name.clone(), netns: from.sandbox.netns.clone(), source: None, to, wanted });
    };
    for address in &target.cluster_ips {
        add(socket(address, 80), if own { open() } else { Wanted::Closed });
    }
    for node in &site.nodes {
        let here = node.name == from.sandbox.node;
        for address in [IpAddr::from(node.ipv4), node.ipv6.into()] {
            let elsewhere = if local && node.name != target.pod.sandbox.node { Wanted::Rejected } else { open() };
            let wanted = match (own, here) {
                (true, true) => open(),
                (_, false) => elsewhere,
                (false, true) if network(from) == "plain" => Wanted::Closed,
                (false, true) if address.is_ipv4() => Wanted::Rejected,
                (false, true) if target.network == "plain" => Wanted::Closed,
                (false, true) => elsewhere,
            };
            add(socket(&address, target.node_port), wanted);
        }
    }
    for address in &target.external {
        let closed = !own && announcer == from.sandbox.node;
        add(socket(address, 80), if closed { Wanted::Closed } else { open() });
    }
    cells
}

fn of_external(site: &Site, target: &Target<'_>) -> Vec<Cell> {
    let local = target.network == "green";
    let external = [udn_lab_sys::site::EXTERNAL_V4.into(), IpAddr::from(udn_lab_sys::site::EXTERNAL_V6)];
    let open = |to: &IpAddr| match local {
        // The client's own address arrives.
        true => Wanted::From(target.pod.name.clone(), external[usize::from(to.is_ipv6())]),
        false => Wanted::Open(target.pod.name.clone()),
    };
    let cell = |to: SocketAddr, wanted: Wanted| Cell {
        from: "external".into(),
        netns: site.external.clone(),
        source: None,
        to,
        wanted,
    };
    let mut cells: Vec<Cell> = target.external.iter().map(|address| cell(socket(address, 80), open(address))).collect();
    cells.extend(target.cluster_ips.iter().map(|address| cell(socket(address, 80), Wanted::Closed)));
    for node in &site.nodes {
        for address in [IpAddr::from(node.ipv4), node.ipv6.into()] {
            let rejected = local && node.name != target.pod.sandbox.node;
            let wanted = if rejected { Wanted::Rejected } else { open(&address) };
            cells.push(cell(socket(&address, target.node_port), wanted));
        }
    }
    cells
}

/// Mirrored slices have the pods' addresses on their own network, and come back.
async fn slices(cluster: &Cluster, target: &Target<'_>) -> Result<()> {
    let namespace = &target.pod.sandbox.namespace;
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), namespace);
    let mirrors = async || -> Result<Vec<EndpointSlice>> {
        let all = api.list(&Default::default()).await?;
        Ok(all.into_iter().filter(|slice| slice.labels().contains_key("k8s.ovn.org/service-name")).collect())
    };
    let complete = async || -> Result<bool> {
        let found = mirrors().await?;
        let has = |address: &IpAddr| {
            found.iter().any(|slice| {
                slice.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&address.to_string()))
                    && slice.annotations().get("k8s.ovn.org/endpointslice-network").map(String::as_str)
                        == Some("blue_blue-network")
            })
        };
        Ok(found.len() == 2 && target.pod.own_addresses().iter().all(has))
    };
    eventually("both mirrored slices", &complete).await?;
    for mirror in mirrors().await? {
        api.delete(&mirror.name_any(), &DeleteParams::default()).await?;
    }
    eventually("the mirrored slices to come back", &complete).await?;
    println!("ok   mirrored slices");
    Ok(())
}

/// A second service that claims an address gets none of its own, and is told so.
async fn conflict(cluster: &Cluster, first: &Target<'_>) -> Result<()> {
    let spec = json!({"externalIPs": [first.external[0], "172.18.255.239"], "ports": [{"port": 80}]});
    create(&cluster.client, "gray", "rival", spec).await?;
    cluster
        .event("gray", "ExternalAddressConflict", "is claimed already by blue/svc231 of network blue_blue-network")
        .await?;
    let site = &cluster.site;
    let free: IpAddr = "172.18.255.239".parse()?;
    let mut cells = of_external(site, first);
    let closed = |to: SocketAddr| Cell {
        from: "external".into(),
        netns: site.external.clone(),
        source: None,
        to,
        wanted: Wanted::Closed,
    };
    cells.push(closed(socket(&free, 80)));
    settle("a claimed address stays where it is", &cells, 2)?;
    // The elder lets go: a service that has no endpoints rejects.
    let api: Api<Service> = Api::namespaced(cluster.client.clone(), &first.pod.sandbox.namespace);
    let none = Patch::Merge(json!({"spec": {"externalIPs": null}}));
    api.patch("svc231", &PatchParams::default(), &none).await?;
    let rejected = Cell { wanted: Wanted::Rejected, ..closed(socket(&free, 80)) };
    settle("a released address goes to who asked for it", &[rejected], 5)
}
