//! Which attachments a pod gets, with which addresses and routes. Decides; changes nothing but the pools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use udn_api::names;

use super::denied::Denied;
use super::state::{State, claim_owner};
use crate::address::Mac;
use crate::annotation::{self, Attachment, ClaimRef, Role, Selection};
use crate::definition::Topology;
use crate::layout::{Layout, Node, POD_RANGES, SERVICE_RANGES};
use crate::naming::{self, DEFAULT_NETWORK};

/// Stands for a service's backend that reaches itself through the service.
const HAIRPIN_MASQUERADE: [&str; 2] = ["169.254.0.5/32", "fd69::5/128"];

/// Why a pod gets nothing now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// Something is not there yet.
    Wait(String),
    /// What it asks for cannot be given, and for which claim.
    Refuse(Denied, Option<ClaimRef>),
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Refuse(message.into(), None)
    }
}

/// A pod, as far as its attachments depend on it.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// Whether its namespace has the primary-network label.
    pub(crate) labelled: bool,
    pub(crate) node: &'a Node,
    /// The virtual machine that it runs.
    pub(crate) vm: Option<&'a str>,
    /// The claim that it names.
    pub(crate) claim: Option<&'a Claim>,
}

/// A claim that a pod names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    /// Nothing where there is no such object.
    pub(crate) uid: Option<String>,
    /// What its status says.
    pub(crate) addresses: Vec<IpNet>,
}

/// OVN-Kubernetes' words for a labelled namespace without network, or a network without label.
pub(crate) fn invalid_primary(namespace: &str) -> String {
    format!(
        "invalid primary network state for namespace \"{namespace}\": a valid primary user defined network or network \
         attachment definition custom resource, and required namespace label \"{}\" must both be present",
        names::PRIMARY_NETWORK_LABEL
    )
}

/// An attachment to be made.
#[derive(Debug)]
struct Want {
    nad: String,
    network: String,
    interface: String,
    role: Role,
    request: Selection,
}

/// Gives a pod its attachments: all of them, or none and the pools as they were.
pub(crate) fn attachments(state: &mut State, pod: &Asking<'_>) -> Result<Vec<Attachment>, Refusal> {
    let wants = wants(state, pod)?;
    let mut made: Vec<Attachment> = Vec::new();
    for want in &wants {
        let attempt = made.iter().filter(|attachment| attachment.nad == want.nad).count();
        let port = naming::pod_port(&want.nad, pod.namespace, pod.name, attempt);
        match attachment(state, pod, want, port, attempt) {
            Ok(attachment) => made.push(attachment),
            Err(refusal) => {
                release(state, pod.uid, &made);
                return Err(refusal);
            }
        }
    }
    Ok(made)
}

/// Gives back what [`attachments`] gave to a pod that is not in the state any more: a claim keeps its addresses as long as
/// it is there, a virtual machine its MAC as long as any pod runs it.
pub(crate) fn release(state: &mut State, uid: &str, attachments: &[Attachment]) {
    for attachment in attachments {
        let runs = |vm: &str| {
            let same = |it: &Attachment| it.network == attachment.network && it.guest.as_deref() == Some(vm);
            state.pods.values().any(|pod| pod.attachments.iter().any(same))
        };
        let idle = attachment.guest.as_ref().filter(|vm| !runs(vm)).map(|vm| mac_owner(vm));
        if let Some(network) = state.networks.get_mut(&attachment.network) {
            network.release(&owner(uid, &attachment.port));
            if let Some(idle) = idle {
                network.release(&idle);
            }
        }
        if let Some(claim) = &attachment.claim {
            state.release_unused_claim(&claim.uid);
        }
    }
}

/// Who holds the addresses of a pod without claim.
pub(crate) fn owner(uid: &str, port: &str) -> String {
    format!("{uid} {port}")
}

/// Who holds the MAC of a virtual machine: both pods of a live migration have it.
fn mac_owner(vm: &str) -> String {
    format!("vm {vm}")
}

fn wants(state: &State, pod: &Asking<'_>) -> Result<Vec<Want>, Refusal> {
    let ready = |network: &str| match state.networks.get(network) {
        Some(network) if network.ready => Ok(()),
        _ => Err(Refusal::Wait(format!("network {network} is not ready yet"))),
    };
    let primary_request = annotation::primary_request(pod.annotations)?.unwrap_or_default();
    let default = |role, request| Want {
        nad: DEFAULT_NETWORK.into(),
        network: DEFAULT_NETWORK.into(),
        interface: "eth0".into(),
        role,
        request,
    };
    let mut wants = Vec::new();
    if pod.labelled {
        let (nad, definition) =
            state.primary_of(pod.namespace).ok_or_else(|| Refusal::Wait(invalid_primary(pod.namespace)))?;
        ready(&definition.name)?;
        wants.push(default(Role::InfrastructureLocked, Selection::default()));
        wants.push(Want {
            nad: nad.to_owned(),
            network: definition.name.clone(),
            interface: "ovn-udn1".into(),
            role: Role::Primary,
            request: primary_request,
        });
    } else {
        wants.push(default(Role::Primary, primary_request));
    }
    for (position, request) in annotation::selections(pod.annotations, pod.namespace)?.into_iter().enumerate() {
        let nad = request.key();
        let missing = || {
            format!(
                "cannot find a network-attachment-definition ({}) in namespace ({}), or it is not of OVN-Kubernetes",
                request.name, request.namespace
            )
        };
        let definition = state.definitions.get(&nad).ok_or_else(|| Refusal::Wait(missing()))?;
        if definition.primary {
            return Err(format!("network {nad} is a primary network and cannot be asked for by annotation").into());
        }
        ready(&definition.name)?;
        let interface =
            if request.interface.is_empty() { format!("net{}", position + 1) } else { request.interface.clone() };
        wants.push(Want { nad, network: definition.name.clone(), interface, role: Role::Secondary, request });
    }
    Ok(wants)
}

fn attachment(
    state: &mut State,
    pod: &Asking<'_>,
    want: &Want,
    port: String,
    attempt: usize,
) -> Result<Attachment, Refusal> {
    let network = state.networks.get_mut(&want.network).ok_or_else(|| format!("network {} is gone", want.network))?;
    let layout = network.layout.clone();
    let primary_layer2 =
        want.role == Role::Primary && !layout.is_default() && layout.definition.topology == Topology::Layer2;
    let guest = pod.vm.filter(|_| primary_layer2).map(|vm| naming::nad_key(pod.namespace, vm));
    // OVN-Kubernetes ignores claims where the network does not keep addresses.
    let named = pod.claim.filter(|_| primary_layer2 && layout.definition.persistent);
    let claim = match named {
        None => None,
        Some(Claim { name, uid: Some(uid), .. }) => {
            Some(ClaimRef { key: naming::nad_key(pod.namespace, name), uid: uid.clone() })
        }
        Some(Claim { name, .. }) => {
            return Err(Refusal::Wait(format!(
                "error retrieving IPAMClaim for pod {}/{}: failed to get IPAMClaim \"{name}\": there is none",
                pod.namespace, pod.name
            )));
        }
    };
    let owner = owner(pod.uid, &port);
    let holder = claim.as_ref().map_or_else(|| owner.clone(), |claim| claim_owner(&claim.uid));
    let refuse = |denied: Denied| Refusal::Refuse(denied, claim.clone());
    let subnets = layout.subnets(pod.node)?;
    let mut fresh = Vec::new();
    let addresses = if subnets.is_empty() {
        // Without address management a request is taken as it is.
        want.request
            .ips
            .iter()
            .map(|text| {
                text.parse::<IpNet>().map_err(|_| format!("invalid IP {text:?} requested: it needs a prefix length"))
            })
            .collect::<Result<Vec<_>, _>>()?
    } else {
        let requested = want.request.addresses().map_err(|reason| refuse(reason.into()))?;
        if primary_layer2 {
            families_match(&subnets, &requested).map_err(refuse)?;
        }
        let claimed = named.map(|claim| claim.addresses.iter().map(IpNet::addr).collect::<Vec<_>>());
        if let Some(other) =
            requested.iter().find(|it| claimed.as_ref().is_some_and(|of| !of.is_empty() && !of.contains(it)))
        {
            return Err(refuse(Denied::internal(format!(
                "cannot allocate a static IP request with IPAM for pod \"{}/{}/{}\": the pod references an ipam claim with \
                 IPs not containing the requested IP \"{other}\"",
                want.nad, pod.namespace, pod.name
            ))));
        }
        // What the pod was given in a former life of this controller it keeps.
        let annotated = || {
            let known = annotation::read_pod_networks(pod.annotations);
            let entry = known.get(&want.nad).filter(|_| attempt == 0);
            entry.map(|entry| entry.ip_addresses.iter().map(IpNet::addr).collect()).unwrap_or_default()
        };
        // The claim's status may not say yet what was decided a moment ago.
        let held = claim.as_ref().map(|_| network.held(&holder, &subnets)).unwrap_or_default();
        let known = [annotated(), claimed.unwrap_or_default(), held].into_iter().map(|mut addresses: Vec<IpAddr>| {
            addresses.retain(|address| subnets.iter().any(|subnet| subnet.contains(address)));
            addresses
        });
        let wanted =
            std::iter::once(requested).chain(known).find(|addresses| !addresses.is_empty()).unwrap_or_default();
        let given = network.allocate(&holder, &subnets, &wanted).map_err(|denied| {
            let message = format!("{}/{}/{}: {}", want.nad, pod.namespace, pod.name, denied.message);
            refuse(Denied { message, ..denied })
        })?;
        fresh = given.fresh;
        given.addresses
    };
    let derived = Mac::of_first(addresses.iter().map(IpNet::addr)).unwrap_or_else(|| Mac::of(name_address(&owner)));
    let mac_holder = guest.as_ref().map_or_else(|| owner.clone(), |vm| mac_owner(vm));
    let claimed = match want.request.mac() {
        Ok(mac) => {
            let mac = mac.unwrap_or(derived);
            network.claim_mac(&mac_holder, mac).map(|()| mac)
        }
        Err(reason) => Err(reason.into()),
    };
    let mac = claimed.map_err(|denied| {
        network.give_back(&fresh);
        refuse(denied)
    })?;
    let (mut gateways, routes) = routes(&layout, want.role, &addresses);
    if !want.request.default_route.is_empty() {
        gateways.clone_from(&want.request.default_route);
    }
    let layer2_ipv6 = layout.definition.topology == Topology::Layer2 && want.role == Role::Primary;
    let link_local_gateway = addresses
        .iter()
        .any(|address| address.addr().is_ipv6() && layer2_ipv6)
        .then(|| {
            Mac::of_first(addresses.iter().filter_map(|address| layout.gateway(address.trunc()))).map(Mac::link_local)
        })
        .flatten();
    Ok(Attachment {
        nad: want.nad.clone(),
        network: want.network.clone(),
        interface: want.interface.clone(),
        role: want.role,
        mac,
        addresses,
        gateways,
        routes,
        link_local_gateway,
        mtu: layout.definition.mtu,
        port,
        guest,
        claim,
    })
}

/// Whether a request has one address for each subnet, or none at all. The words are OVN-Kubernetes'.
fn families_match(subnets: &[IpNet], requested: &[IpAddr]) -> Result<(), Denied> {
    const MISMATCH: &str = "requested IPs family types must match network's IP family configuration";
    if requested.is_empty() {
        return Ok(());
    }
    if requested.len() != subnets.len() {
        let (expected, got) = (subnets.len(), requested.len());
        return Err(Denied::internal(format!("layer2 network expects {expected} IP(s), got {got}: {MISMATCH}")));
    }
    let has = |ipv6: bool| subnets.iter().any(|subnet| subnet.addr().is_ipv6() == ipv6);
    let asks = |ipv6: bool| requested.iter().any(|address| address.is_ipv6() == ipv6);
    if has(false) == asks(false) && has(true) == asks(true) {
        return Ok(());
    }
    Err(Denied::internal(format!(
        "layer2 network IP family mismatch: network supports IPv4={} IPv6={}, but requested types IPv4={} IPv6={}: \
         {MISMATCH}",
        has(false),
        has(true),
        asks(false),
        asks(true)
    )))
}

/// An address that only serves to derive a MAC from, for ports that have none.
fn name_address(text: &str) -> IpAddr {
    std::net::Ipv6Addr::from(u128::from(naming::hash(text))).into()
}

/// Gateways and routes of an attachment, in OVN-Kubernetes' order.
fn routes(layout: &Layout, role: Role, addresses: &[IpNet]) -> (Vec<IpAddr>, Vec<(IpNet, IpAddr)>) {
    let (mut gateways, mut routes) = (Vec::new(), Vec::new());
    for address in addresses {
        let ipv6 = address.addr().is_ipv6();
        let Some(gateway) = layout.gateway(address.trunc()) else { continue };
        let constant = |texts: [&str; 2]| texts[usize::from(ipv6)].parse::<IpNet>().ok();
        let join = || layout.definition.join.iter().copied().find(|join| join.addr().is_ipv6() == ipv6);
        let mut to: Vec<IpNet> = Vec::new();
        if layout.is_default() {
            to.extend(constant(POD_RANGES));
            if role == Role::Primary {
                to.extend(constant(SERVICE_RANGES));
                to.extend(constant(HAIRPIN_MASQUERADE));
            }
            to.extend(join());
        } else {
            if layout.definition.topology == Topology::Layer3 {
                let ranges = layout.definition.ranges.iter().map(|range| range.net);
                to.extend(ranges.filter(|net| net.addr().is_ipv6() == ipv6));
            }
            if role == Role::Primary {
                to.extend(constant(SERVICE_RANGES));
                to.extend(join());
            }
        }
        if role == Role::Primary {
            gateways.push(gateway);
        }
        routes.extend(to.into_iter().map(|net| (net, gateway)));
    }
    (gateways, routes)
}

#[cfg(test)]
mod tests;
