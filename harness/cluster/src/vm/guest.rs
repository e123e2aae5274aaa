//! The inside of a guest as facts see it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use udn_agent::protocol::Facts;
use udn_model::fact::{Guest, Identity, PodView};
use udn_model::words::Family;
use udn_model::world::PodRef;

use super::lock;
use crate::objects::Real;
use crate::world::KubeWorld;

/// What the guest's agent says of it.
pub(crate) fn inside(facts: &Facts) -> Guest {
    let resolvers = facts.resolvers.nameservers.iter().filter_map(|server| server.parse().ok()).collect();
    let known = facts.neighbours.iter().filter(|neighbour| !neighbour.mac.is_empty());
    Guest {
        hostname: Some(facts.hostname.clone()).filter(|name| !name.is_empty() && name != "(none)"),
        resolvers,
        neighbours: known.map(|neighbour| (neighbour.address, neighbour.mac.to_lowercase())).collect(),
        ..Guest::default()
    }
}

/// The main entry of a VM's `pod-networks`: its MAC and the families of its addresses.
fn main_entry(view: &PodView) -> Option<(&str, Vec<Family>)> {
    let entry = view.pod_networks.values().find(|entry| entry.role.as_deref() == Some("primary"))?;
    let mut families: Vec<Family> = entry.ips.iter().map(|ip| Family::of(ip.addr())).collect();
    families.sort_unstable();
    families.dedup();
    Some((&entry.mac, families))
}

/// What a guest lacks that its network gives; `None`: nothing.
pub(super) fn lacks(view: &PodView) -> Option<String> {
    let Some((mac, families)) = main_entry(view) else {
        return Some("its launcher pod has no primary network in k8s.ovn.org/pod-networks".into());
    };
    match Identity::of(view, mac) {
        None => Some(format!("no interface of the guest has {mac}")),
        Some(identity) if !identity.is_complete(&families) => Some(format!("{identity:?}")),
        Some(_) => None,
    }
}

/// Completes what is known of a guest by what the cluster and the past say.
pub(crate) async fn complete(world: &KubeWorld, vm: &PodRef, view: &mut PodView, dns: &[IpAddr]) {
    let claim = claim(world, vm).await;
    let Some(guest) = view.guest.as_mut() else { return };
    guest.claim = claim;
    guest.dns = dns.to_vec();
    guest.switched_us = lock(&world.vms.switched).get(vm).copied();
    let Some((mac, families)) = main_entry(view) else { return };
    let now = Identity::of(view, mac).filter(|identity| identity.is_complete(&families));
    let mut identities = lock(&world.vms.identities);
    if let (false, Some(now)) = (identities.contains_key(vm), now) {
        identities.insert(vm.clone(), now);
    }
    let before = identities.get(vm).cloned();
    if let Some(guest) = view.guest.as_mut() {
        guest.before = before;
    }
}

/// What the VM's IPAMClaim says.
async fn claim(world: &KubeWorld, vm: &PodRef) -> Option<Vec<IpNet>> {
    let real = claim_object(world, vm)?;
    let object = world.objects.get(&real).await.ok().flatten()?;
    let ips = object["status"]["ips"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Some(ips.filter_map(|ip| ip.parse().ok()).collect())
}

/// The VM's IPAMClaim.
pub(crate) fn claim_object(world: &KubeWorld, vm: &PodRef) -> Option<Real> {
    Some(Real {
        api_version: "k8s.cni.cncf.io/v1alpha1".into(),
        kind: "IPAMClaim".into(),
        namespace: Some(world.naming.real(&vm.namespace)),
        name: world.vms.get(vm)?.claim,
    })
}
