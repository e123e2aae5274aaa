//! Network policies, alike on a Layer3 network, on a Layer2 network of two namespaces and on the default network.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use udn_lab_network::probe_source;
use udn_lab_sys::ovsdb::Client;
use udn_lab_sys::site::Site;

use crate::cluster::{Attached, Cluster, socket};
use crate::probe::{Cell, Wanted, check, listen, settle};
use crate::scenarios::{cell, host};

const OPEN: u16 = 8080;
const OTHER: u16 = 9090;
/// How long a change may take to reach all nodes.
const TO_ENFORCE: Duration = Duration::from_secs(10);

/// A target, and pods of its network that are strangers to it or in the other namespace.
struct Group<'a> {
    target: &'a Attached,
    strangers: Vec<&'a Attached>,
}

pub(crate) async fn run(cluster: &Cluster, site: &Site, pods: &[Attached]) -> Result<()> {
    let find = |name: &str| pods.iter().find(|pod| pod.name == name).with_context(|| format!("no pod {name}"));
    let groups = [
        Group { target: find("blue/b1")?, strangers: vec![find("blue/b2")?, find("blue/b3")?] },
        Group { target: find("red/r1")?, strangers: vec![find("red/r0")?, find("yellow/y1")?, find("yellow/y2")?] },
        Group { target: find("plain/p1")?, strangers: vec![find("plain/p0")?, find("plain/p2")?] },
    ];
    for pod in groups.iter().map(|group| group.target) {
        listen(&pod.sandbox.netns, &pod.name, OTHER)?;
        label(cluster, pod, json!({"shield": "up"})).await?;
    }
    let friends = json!({"podSelector": {"matchLabels": {"shield": "up"}}, "ingress": [{
        "from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}, {"namespaceSelector": {"matchLabels": {"tenant": "yellow"}}}],
        "ports": [{"port": OPEN}],
    }]});
    for group in &groups {
        policy(cluster, group.target, &friends).await?;
    }
    rounds("a policy that selects labels nobody has", &groups, |_, from| from.sandbox.namespace == "yellow").await?;
    for group in &groups {
        label(cluster, group.strangers[0], json!({"friend": "yes"})).await?;
    }
    rounds("labels are followed", &groups, |group, from| {
        from.name == group.strangers[0].name || from.sandbox.namespace == "yellow"
    })
    .await?;
    own_node(site, &groups[2])?;
    newcomers(cluster, site, &groups).await?;
    rebuilt(cluster, pods).await?;
    for pod in groups.iter().map(|group| group.target) {
        let api: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), &pod.sandbox.namespace);
        api.delete("p", &DeleteParams::default()).await?;
    }
    let mut cells = Vec::new();
    for group in &groups {
        cells.extend(group.strangers.iter().flat_map(|from| knocks(from, group.target, OTHER, true)));
    }
    enforced("policies are gone", &cells).await
}

/// Tries until all cells are as they should be. What is wrongly open answers at once: rounds alone would not wait.
async fn enforced(what: &str, cells: &[Cell]) -> Result<()> {
    let started = Instant::now();
    loop {
        let wrong = check(cells);
        if wrong.is_empty() {
            println!("ok   {what}: {} cells", cells.len());
            return Ok(());
        }
        if started.elapsed() > TO_ENFORCE {
            bail!("{what}: {} of {} cells are wrong:\n  {}", wrong.len(), cells.len(), wrong.join("\n  "));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What `allowed` says holds on the open port, and nothing on the other; the target itself reaches everybody.
async fn rounds(what: &str, groups: &[Group<'_>], allowed: impl Fn(&Group<'_>, &Attached) -> bool) -> Result<()> {
    let mut cells = Vec::new();
    for group in groups {
        for from in &group.strangers {
            cells.extend(knocks(from, group.target, OPEN, allowed(group, from)));
            cells.extend(knocks(from, group.target, OTHER, false));
            cells.extend(knocks(group.target, from, OPEN, true));
        }
    }
    enforced(what, &cells).await
}

fn knocks(from: &Attached, to: &Attached, port: u16, open: bool) -> Vec<Cell> {
    let wanted = || if open { Wanted::Open(to.name.clone()) } else { Wanted::Closed };
    home(to).iter().map(|address| cell(from, socket(address, port), wanted())).collect()
}

/// A pod's addresses on its primary network.
fn home(pod: &Attached) -> &[IpAddr] {
    if pod.own_addresses().is_empty() { pod.default_addresses() } else { pod.own_addresses() }
}

/// Its own node and kubelet reach a pod of the default network all the same; other nodes do not.
fn own_node(site: &Site, group: &Group<'_>) -> Result<()> {
    let mut cells = Vec::new();
    for node in &site.nodes {
        for address in home(group.target) {
            let own = node.name == group.target.sandbox.node;
            let wanted = || if own { Wanted::Open(group.target.name.clone()) } else { Wanted::Closed };
            cells.push(host(&node.name, &node.netns, socket(address, OTHER), wanted()));
            if own {
                let mut probe = host("kubelet", &node.netns, socket(address, OTHER), wanted());
                probe.source = Some(probe_source(node.index, *address));
                cells.push(probe);
            }
        }
    }
    settle("a pod's own node", &cells, 2)
}

/// Policies hold for a new pod from its first packet: there is but one round.
async fn newcomers(cluster: &Cluster, site: &Site, groups: &[Group<'_>]) -> Result<()> {
    let mut cells = Vec::new();
    let mut made = Vec::new();
    for group in groups {
        let everybody = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
        policy(cluster, group.target, &everybody).await?;
    }
    for group in groups {
        let (namespace, node) = (&group.target.sandbox.namespace, &group.strangers[1].sandbox.node);
        made.push(cluster.pod(namespace, "newcomer", node, json!({})).await?);
    }
    for (group, newcomer) in groups.iter().zip(&made) {
        cells.extend(group.strangers.iter().flat_map(|from| knocks(from, newcomer, OPEN, false)));
    }
    settle("a newcomer's first packets", &cells, 1)?;
    for newcomer in &made {
        cluster.delete_pod(&newcomer.sandbox).await?;
    }
    crowd(cluster, site, groups).await
}

/// However many pods come at once, while policies change: no port is ever in OVN without what denies it its visitors.
async fn crowd(cluster: &Cluster, site: &Site, groups: &[Group<'_>]) -> Result<()> {
    let (done, socket) = (Arc::new(AtomicBool::new(false)), site.ovn.northbound());
    let watching = {
        let done = done.clone();
        tokio::spawn(async move {
            let mut northbound = Client::connect(&socket, Duration::from_secs(5)).await?;
            let (mut bare, mut looks) = (BTreeSet::new(), 0);
            while !done.load(Ordering::Relaxed) {
                bare.append(&mut unguarded(&mut northbound).await?);
                looks += 1;
            }
            anyhow::Ok((bare, looks))
        })
    };
    let names: Vec<String> = (0..8).map(|number| format!("crowd-{number}")).collect();
    let create = names.iter().flat_map(|name| {
        groups.iter().map(move |group| {
            let target = &group.target.sandbox;
            cluster.create_pod(&target.namespace, name, &target.node, json!({}))
        })
    });
    let made = try_join_all(create).await?;
    let guarded = async || {
        let mut northbound = Client::connect(&site.ovn.northbound(), Duration::from_secs(5)).await?;
        anyhow::Ok(ports_of_the_crowd(&mut northbound).await? == made.len())
    };
    crate::cluster::eventually("the crowd's ports", guarded).await?;
    for sandbox in &made {
        cluster.delete_pod(sandbox).await?;
    }
    done.store(true, Ordering::Relaxed);
    let (bare, looks) = watching.await??;
    ensure!(looks > 0, "nobody looked at the crowd");
    ensure!(bare.is_empty(), "ports without the policies of their namespace for a time: {bare:?}");
    println!("ok   {} pods at once were never without their policies: {looks} looks", made.len());
    Ok(())
}

async fn ports_of_the_crowd(northbound: &mut Client) -> Result<usize> {
    let select =
        json!({"op": "select", "table": "Logical_Switch_Port", "where": [], "columns": ["name", "external_ids"]});
    let found = northbound.transact("OVN_Northbound", &[select]).await?;
    Ok(found[0]["rows"].as_array().into_iter().flatten().filter(|port| is_primary_of_the_crowd(port)).count())
}

/// Ports of the crowd that no namespace's group has, all of one moment.
async fn unguarded(northbound: &mut Client) -> Result<BTreeSet<String>> {
    let select =
        |table: &str, columns: [&str; 3]| json!({"op": "select", "table": table, "where": [], "columns": columns});
    let operations = [
        select("Logical_Switch_Port", ["_uuid", "name", "external_ids"]),
        select("Port_Group", ["name", "ports", "external_ids"]),
    ];
    let found = northbound.transact("OVN_Northbound", &operations).await?;
    let rows = |position: usize| found[position]["rows"].as_array().into_iter().flatten();
    let denying: Vec<String> = rows(1)
        .filter(|group| group["external_ids"].to_string().contains("NetpolNamespace"))
        .map(|group| group["ports"].to_string())
        .collect();
    let guarded = |port: &Value| {
        let uuid = port["_uuid"][1].as_str().unwrap_or_default();
        denying.iter().any(|ports| ports.contains(uuid))
    };
    let bare = rows(0).filter(|port| is_primary_of_the_crowd(port) && !guarded(port));
    Ok(bare.map(|port| port["name"].as_str().unwrap_or_default().to_owned()).collect())
}

/// A tenant's pods have a port on the default network as well, to which policies do not apply.
fn is_primary_of_the_crowd(port: &Value) -> bool {
    let name = port["name"].as_str().unwrap_or_default();
    let on_default = port["external_ids"].to_string().contains(r#"["k8s.ovn.org/nad","default"]"#);
    name.contains("_crowd-") && (!on_default || name.starts_with("plain_"))
}

/// A network that is laid out anew keeps its pods' policies.
async fn rebuilt(cluster: &Cluster, pods: &[Attached]) -> Result<()> {
    let find = |name: &str| pods.iter().find(|pod| pod.name == name).context("no such pod");
    let (shielded, plain, from) = (find("green/g2")?, find("green/g3")?, find("green/g1")?);
    label(cluster, shielded, json!({"shield": "up"})).await?;
    policy(cluster, shielded, &json!({"podSelector": {"matchLabels": {"shield": "up"}}})).await?;
    let cells: Vec<Cell> =
        knocks(from, shielded, OPEN, false).into_iter().chain(knocks(from, plain, OPEN, true)).collect();
    enforced("a policy on green", &cells).await?;
    let udn = cluster.get("UserDefinedNetwork", Some("green"), "green-network").await?.context("no green network")?;
    let mut subnets = udn.data["spec"]["layer3"]["subnets"].clone();
    let list = subnets.as_array_mut().context("green has no subnets")?;
    list.push(json!({"cidr": "105.105.0.0/16", "hostSubnet": 24}));
    let change = json!({"spec": {"layer3": {"subnets": list}}});
    cluster.patch("UserDefinedNetwork", Some("green"), "green-network", change).await?;
    let networks = || async {
        let nad = cluster.get("NetworkAttachmentDefinition", Some("green"), "green-network").await?;
        anyhow::Ok(nad.is_some_and(|nad| nad.data["spec"]["config"].as_str().is_some_and(|it| it.contains("105.105."))))
    };
    crate::cluster::eventually("green to grow", async || networks().await).await?;
    cluster.network.settle().await?;
    ensure!(cells.len() == 4, "{} addresses", cells.len());
    settle("a policy on a network that grew", &cells, 1)?;
    let api: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), "green");
    api.delete("p", &DeleteParams::default()).await?;
    Ok(())
}

async fn policy(cluster: &Cluster, pod: &Attached, spec: &Value) -> Result<()> {
    let api: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), &pod.sandbox.namespace);
    let object =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec});
    api.patch("p", &PatchParams::apply("packets").force(), &Patch::Apply(object)).await?;
    Ok(())
}

async fn label(cluster: &Cluster, pod: &Attached, labels: Value) -> Result<()> {
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client.clone(), &pod.sandbox.namespace);
    api.patch(&pod.sandbox.pod, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": labels}})))
        .await?;
    Ok(())
}
