//! State of a pod, its network and its namespace, for a reader of a failure. Bounded: a report has many of these.

use std::time::Duration;

use serde_json::Value;
use udn_agent::protocol::{Body, Facts, Op};
use udn_model::cell::ObjectRef;
use udn_model::world::PodRef;

use crate::addresses::{NETWORK_STATUS, POD_NETWORKS, annotation};
use crate::claims::pod_state;
use crate::vm;
use crate::world::KubeWorld;

/// Events that are told at most.
const EVENTS: usize = 8;
/// Characters of one text at most.
const LONGEST: usize = 4000;
/// How long the agent may take to look around.
const PATIENCE: Duration = Duration::from_secs(3);

/// One text per source.
pub(crate) async fn collect(world: &KubeWorld, pod: &PodRef) -> Vec<String> {
    let (object, networks, inside) = tokio::join!(pod_object(world, pod), networks(world, pod), inside(world, pod));
    let mut notes = object;
    notes.extend(networks);
    notes.extend(inside);
    notes.into_iter().map(|note| bounded(&note)).collect()
}

async fn pod_object(world: &KubeWorld, pod: &PodRef) -> Vec<String> {
    let mut notes = Vec::new();
    if world.vms.get(pod).is_some() {
        notes.extend(vm_objects(world, pod).await);
    }
    let mut real = world.real(&ObjectRef::pod(pod));
    if let Some(launcher) = world.object_of(pod) {
        real.name = launcher["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    }
    match world.objects.get(&real).await {
        Ok(Some(object)) => {
            let node = object["spec"]["nodeName"].as_str().unwrap_or("no node");
            let addresses = crate::addresses::status_ips(&object);
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            notes.push(format!("{real}: on {node}, {}, podIPs {}", pod_state(&object), addresses.join(", ")));
            for key in [POD_NETWORKS, NETWORK_STATUS] {
                let value = annotation(&object, key).unwrap_or("not there");
                notes.push(format!(
                    "{real}: annotation {key}: {}",
                    value.split_whitespace().collect::<Vec<_>>().join(" ")
                ));
            }
        }
        Ok(None) => notes.push(format!("{real}: not there")),
        Err(error) => notes.push(format!("{real}: {error}")),
    }
    if let Ok(events) = world.objects.events(&real).await
        && !events.is_empty()
    {
        let told: Vec<String> = events.iter().rev().take(EVENTS).map(tell_event).collect();
        notes.push(format!("{real}: events, latest first: {}", told.join("; ")));
    }
    notes
}

/// The VM, its instance, its migrations and its IPAMClaim.
async fn vm_objects(world: &KubeWorld, vm: &PodRef) -> Vec<String> {
    let machine = vm::machine(world, vm);
    let claim = vm::guest::claim_object(world, vm);
    let mut notes = Vec::new();
    for real in [Some(machine.clone()), Some(vm::instance(world, vm)), claim].into_iter().flatten() {
        match world.objects.get(&real).await {
            Ok(Some(object)) => notes.push(format!("{real}: status {}", object["status"])),
            Ok(None) => notes.push(format!("{real}: not there")),
            Err(error) => notes.push(format!("{real}: {error}")),
        }
        if let Ok(events) = world.objects.events(&real).await
            && !events.is_empty()
        {
            let told: Vec<String> = events.iter().rev().take(EVENTS).map(tell_event).collect();
            notes.push(format!("{real}: events, latest first: {}", told.join("; ")));
        }
    }
    let listed = world.objects.list(vm::KUBEVIRT, vm::MIGRATION_KIND, machine.namespace.as_deref(), None).await;
    for migration in listed.unwrap_or_default() {
        if migration.data["spec"]["vmiName"] == *vm.name {
            let name = migration.metadata.name.unwrap_or_default();
            notes.push(format!("{} {name}: status {}", vm::MIGRATION_KIND, migration.data["status"]));
        }
    }
    notes
}

fn tell_event(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    format!("{} {}: {}", text("lastTimestamp"), text("reason"), text("message"))
}

/// Conditions of the networks in the pod's namespace.
async fn networks(world: &KubeWorld, pod: &PodRef) -> Vec<String> {
    let namespace = world.naming.real(&pod.namespace);
    let own = world.objects.list("k8s.ovn.org/v1", "UserDefinedNetwork", Some(&namespace), None);
    let selector = crate::names::selector(&world.run, Some(&world.instance));
    let cluster = world.objects.list("k8s.ovn.org/v1", "ClusterUserDefinedNetwork", None, Some(&selector));
    let (own, cluster) = tokio::join!(own, cluster);
    let objects = own.into_iter().chain(cluster).flatten();
    let tell = |object: kube::api::DynamicObject| {
        let kind = object.types.map(|types| types.kind).unwrap_or_default();
        let name = object.metadata.name.unwrap_or_default();
        format!("{kind} {name}: conditions {}", object.data["status"]["conditions"])
    };
    objects.map(tell).collect()
}

/// What the agent sees around it.
async fn inside(world: &KubeWorld, pod: &PodRef) -> Vec<String> {
    let station = match world.station(pod).await {
        Ok(station) => station,
        Err(why) => return vec![format!("pod {pod}, inside: {why}")],
    };
    match station.agent.call(Op::Facts, PATIENCE).await {
        Ok(Body::Facts(facts)) => vec![format!("pod {pod}, inside: {}", tell_facts(&facts))],
        Ok(_) => Vec::new(),
        Err(error) => vec![format!("pod {pod}, inside: {error}")],
    }
}

fn tell_facts(facts: &Facts) -> String {
    let name = |index: u32| {
        let found = facts.interfaces.iter().find(|interface| interface.index == index);
        found.map_or_else(|| format!("#{index}"), |interface| interface.name.clone())
    };
    let interfaces = facts.interfaces.iter().filter(|interface| interface.name != "lo").map(|interface| {
        let addresses: Vec<String> =
            interface.addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix)).collect();
        let state = if interface.up { "up" } else { "down" };
        format!("{} {state} mtu {} {} {}", interface.name, interface.mtu, interface.mac, addresses.join(" "))
    });
    let routes = facts.routes.iter().map(|route| {
        let hops = route.next_hops.iter().map(|hop| {
            let via = hop.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            format!("{via} dev {}", name(hop.interface))
        });
        format!("{} {}/{}{}", route.kind, route.destination, route.prefix, hops.collect::<String>())
    });
    let neighbours =
        facts.neighbours.iter().map(|n| format!("{} {} {} {}", n.address, name(n.interface), n.mac, n.state));
    let join = |parts: Vec<String>| parts.join("; ");
    format!(
        "interfaces: {} | routes: {} | neighbours: {}",
        join(interfaces.collect()),
        join(routes.collect()),
        join(neighbours.collect())
    )
}

fn bounded(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(LONGEST).collect();
    cut.push_str(" …");
    cut
}
