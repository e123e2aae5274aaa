//! Which addresses services have, and which node announces those of the underlay.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use udn_model::words::Transport;
use udn_model::world::{ServiceRef, World as Declared};
use udn_runner::cluster::ServiceAddresses;

use crate::error::Error;
use crate::names::selector;
use crate::objects::{Objects, Real};
use crate::world::KubeWorld;

/// The reason of the event by which a load balancer says which node answers for an address on the underlay: MetalLB's
/// speaker raises it on the service, `announcing from node "worker" with protocol "layer2"`.
const ASSIGNED: &str = "nodeAssigned";

/// Who announces which service, once it is known: asked for again only while it is not.
#[derive(Debug, Default)]
pub(crate) struct Announcers(Mutex<HashMap<ServiceRef, Option<u8>>>);

/// The services of a world with their addresses. Asks nobody where the world declares none.
///
/// # Errors
/// The API server cannot be asked.
pub(crate) async fn all(
    world: &KubeWorld,
    declared: &Declared,
    nodes: &[String],
) -> Result<Vec<(ServiceRef, ServiceAddresses)>, Error> {
    if declared.services.is_empty() {
        return Ok(Vec::new());
    }
    let selector = selector(&world.run, Some(&world.instance));
    let mut all = Vec::new();
    for object in world.objects.list("v1", "Service", None, Some(&selector)).await? {
        let object = serde_json::to_value(object).unwrap_or_default();
        let (Some(namespace), Some(name)) =
            (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str())
        else {
            continue;
        };
        let Some(namespace) = world.naming.world(namespace) else { continue };
        let service = ServiceRef::new(namespace, name);
        let mut addresses = of(&object);
        if !addresses.load_balancer.is_empty() || !addresses.external.is_empty() {
            addresses.announcer = announcer(world, &service, nodes).await?;
        }
        all.push((service, addresses));
    }
    Ok(all)
}

/// Slot of the node that announces a service.
async fn announcer(world: &KubeWorld, service: &ServiceRef, nodes: &[String]) -> Result<Option<Option<u8>>, Error> {
    let known = || world.announcers.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(slot) = known().get(service) {
        return Ok(Some(*slot));
    }
    let real = Real {
        api_version: "v1".into(),
        kind: "Service".into(),
        namespace: Some(world.naming.real(&service.namespace)),
        name: service.name.clone(),
    };
    let events = world.objects.events(&real).await?;
    let Some(node) = events.iter().rev().find_map(assigned) else { return Ok(None) };
    let slot = nodes.iter().position(|name| *name == node).and_then(|slot| u8::try_from(slot).ok());
    known().insert(service.clone(), slot);
    Ok(Some(slot))
}

/// The node that an event names as the announcing one.
fn assigned(event: &Value) -> Option<String> {
    (event["reason"] == ASSIGNED).then_some(())?;
    let (_, behind) = event["message"].as_str()?.split_once("node \"")?;
    Some(behind.split_once('"')?.0.to_owned())
}

/// A service's addresses, from its object.
fn of(service: &Value) -> ServiceAddresses {
    let spec = &service["spec"];
    let read = |list: &Value| -> Vec<IpAddr> {
        list.as_array().into_iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
    };
    let node_port = |port: &Value| {
        let transport = Transport::of_protocol(port["protocol"].as_str())?;
        let number = |field: &str| port[field].as_u64().and_then(|number| u16::try_from(number).ok());
        Some(((transport, number("port")?), number("nodePort").filter(|number| *number > 0)?))
    };
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    ServiceAddresses {
        cluster: read(&spec["clusterIPs"]),
        node_ports: spec["ports"].as_array().into_iter().flatten().filter_map(node_port).collect(),
        load_balancer: ingress.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect(),
        external: read(&spec["externalIPs"]),
        announcer: None,
    }
}

/// The ClusterIPs of a service of the cluster's own; none where it is not there.
///
/// # Errors
/// The API server cannot be asked.
pub(crate) async fn cluster_ips(objects: &Objects, namespace: &str, name: &str) -> Result<Vec<IpAddr>, Error> {
    let real =
        Real { api_version: "v1".into(), kind: "Service".into(), namespace: Some(namespace.into()), name: name.into() };
    Ok(objects.get(&real).await?.map(|service| of(&service).cluster).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_address_of_a_service_is_read() {
        let addresses = of(&json!({
            "spec": { "clusterIPs": ["10.96.0.7", "fd00::7"], "externalIPs": ["172.18.255.9"],
                "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 80, "protocol": "UDP", "nodePort": 30081 }, { "port": 81 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "172.18.255.200" }, { "hostname": "x" }] } } }));
        assert_eq!(addresses.cluster.len(), 2);
        assert_eq!(addresses.node_ports, [((Transport::Tcp, 80), 30080), ((Transport::Udp, 80), 30081)].into());
        assert_eq!(addresses.load_balancer, ["172.18.255.200".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses.external, ["172.18.255.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(of(&json!({})), ServiceAddresses::default());
    }

    #[test]
    fn the_announcing_node_is_read_from_its_event() {
        let event = |reason: &str, message: &str| json!({ "reason": reason, "message": message });
        let told = event("nodeAssigned", "announcing from node \"ovn-worker\" with protocol \"layer2\"");
        assert_eq!(assigned(&told).as_deref(), Some("ovn-worker"));
        assert_eq!(assigned(&event("IPAllocated", "node \"x\"")), None);
        assert_eq!(assigned(&event("nodeAssigned", "somebody")), None);
    }
}
