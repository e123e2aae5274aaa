//! Which attachments a pod gets, with which addresses and routes. Decides; changes nothing but the pools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use udn_api::names;

use super::state::State;
use crate::address::Mac;
use crate::annotation::{self, Attachment, Role, Selection};
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
    /// What it asks for cannot be given.
    Refuse(String),
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
            Err(reason) => {
                release(state, pod.uid, &made);
                return Err(Refusal::Refuse(reason));
            }
        }
    }
    Ok(made)
}

/// Gives back what [`attachments`] gave.
pub(crate) fn release(state: &mut State, uid: &str, attachments: &[Attachment]) {
    for attachment in attachments {
        if let Some(network) = state.networks.get_mut(&attachment.network) {
            network.release(&owner(uid, &attachment.port));
        }
    }
}

fn owner(uid: &str, port: &str) -> String {
    format!("{uid} {port}")
}

fn wants(state: &State, pod: &Asking<'_>) -> Result<Vec<Want>, Refusal> {
    let ready = |network: &str| match state.networks.get(network) {
        Some(network) if network.ready => Ok(()),
        _ => Err(Refusal::Wait(format!("network {network} is not ready yet"))),
    };
    let primary_request = annotation::primary_request(pod.annotations).map_err(Refusal::Refuse)?.unwrap_or_default();
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
    for (position, request) in
        annotation::selections(pod.annotations, pod.namespace).map_err(Refusal::Refuse)?.into_iter().enumerate()
    {
        let nad = request.key();
        let missing = || {
            format!(
                "cannot find a network-attachment-definition ({}) in namespace ({}), or it is not of OVN-Kubernetes",
                request.name, request.namespace
            )
        };
        let definition = state.definitions.get(&nad).ok_or_else(|| Refusal::Wait(missing()))?;
        if definition.primary {
            return Err(Refusal::Refuse(format!(
                "network {nad} is a primary network and cannot be asked for by annotation"
            )));
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
) -> Result<Attachment, String> {
    let owner = owner(pod.uid, &port);
    let network = state.networks.get_mut(&want.network).ok_or_else(|| format!("network {} is gone", want.network))?;
    let layout = network.layout.clone();
    let subnets = layout.subnets(pod.node)?;
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
        let mut requested = want.request.addresses()?;
        if requested.is_empty() && attempt == 0 {
            // What the pod was given in a former life of this controller it keeps.
            let known = annotation::read_pod_networks(pod.annotations);
            requested = known
                .get(&want.nad)
                .map(|entry| entry.ip_addresses.iter().map(IpNet::addr).collect())
                .unwrap_or_default();
            requested.retain(|address| subnets.iter().any(|subnet| subnet.contains(address)));
        }
        network.allocate(&owner, &subnets, &requested)?
    };
    let derived = Mac::of_first(addresses.iter().map(IpNet::addr)).unwrap_or_else(|| Mac::of(name_address(&owner)));
    let mac = want.request.mac()?.unwrap_or(derived);
    if let Err(reason) = network.claim_mac(&owner, mac) {
        network.release(&owner);
        return Err(reason);
    }
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
    })
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
mod tests {
    use super::*;
    use crate::controller::state::NetworkState;
    use crate::definition;
    use crate::layout::tests::{LAYER2, LAYER3, nodes};

    fn state(configs: &[(&str, &str)]) -> State {
        let mut state = State::default();
        let mut default = NetworkState::new(Layout::default_network(nodes()));
        default.ready = true;
        state.networks.insert(DEFAULT_NETWORK.into(), default);
        for (id, (key, config)) in (1..).zip(configs) {
            let definition = definition::parse(key, config).unwrap().unwrap();
            let layout = Layout { definition: definition.clone().into(), id, nodes: nodes() };
            let mut network = NetworkState::new(layout);
            network.ready = true;
            state.networks.insert(definition.name.clone(), network);
            state.definitions.insert((*key).into(), definition);
        }
        state
    }

    fn ask(
        state: &mut State,
        name: &str,
        labelled: bool,
        annotations: &[(&str, &str)],
    ) -> Result<Vec<Attachment>, Refusal> {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let nodes = nodes();
        attachments(
            state,
            &Asking { namespace: "blue", name, uid: name, annotations: &annotations, labelled, node: &nodes[1] },
        )
    }

    fn destinations(attachment: &Attachment) -> Vec<String> {
        attachment.routes.iter().map(|(net, _)| net.to_string()).collect()
    }

    #[test]
    fn a_primary_layer3_pod_has_what_was_measured() {
        let mut state = state(&[("blue/blue-network", LAYER3)]);
        let made = ask(&mut state, "p", true, &[]).unwrap();
        assert_eq!((made[0].role, made[1].role), (Role::InfrastructureLocked, Role::Primary));
        assert_eq!(destinations(&made[0]), ["10.244.0.0/16", "100.64.0.0/16", "fd00:10:244::/48", "fd98::/64"]);
        assert_eq!(
            destinations(&made[1]),
            ["103.103.0.0/16", "10.96.0.0/16", "100.65.0.0/16", "2014:100:200::/60", "fd00:10:96::/112", "fd99::/64"]
        );
        assert_eq!(made[1].addresses[0].to_string(), "103.103.1.3/24");
        assert_eq!(made[1].gateways[0].to_string(), "103.103.1.1");
        assert!(made[0].gateways.is_empty());
        assert_eq!((made[0].interface.as_str(), made[1].interface.as_str()), ("eth0", "ovn-udn1"));
    }

    #[test]
    fn layer2_has_two_routes_per_family() {
        let mut state = state(&[("blue/blue-network", LAYER2)]);
        let made = ask(&mut state, "p", true, &[]).unwrap();
        assert_eq!(destinations(&made[1]), ["10.96.0.0/16", "100.65.0.0/16", "fd00:10:96::/112", "fd99::/64"]);
        assert_eq!(made[1].link_local_gateway.unwrap().to_string(), "fe80::858:acff:fe10:2");
    }

    #[test]
    fn label_and_network_decide_together() {
        let mut empty = state(&[]);
        assert!(
            matches!(ask(&mut empty, "p", true, &[]), Err(Refusal::Wait(reason)) if reason.contains("invalid primary network state"))
        );
        let mut with_network = state(&[("blue/blue-network", LAYER3)]);
        let made = ask(&mut with_network, "p", false, &[]).unwrap();
        assert_eq!((made.len(), made[0].role), (1, Role::Primary));
        assert_eq!(made[0].gateways.len(), 2);
    }

    #[test]
    fn static_requests_and_duplicates() {
        let mut state = state(&[("blue/blue-network", LAYER2)]);
        let request = r#"[{"name":"default","namespace":"ovn-kubernetes","mac":"02:03:04:05:06:07","ips":["172.16.0.9/16","2014:100:200::9/60"]}]"#;
        let made = ask(&mut state, "one", true, &[(names::DEFAULT_NETWORK, request)]).unwrap();
        assert_eq!(made[1].addresses[0].to_string(), "172.16.0.9/16");
        assert_eq!(made[1].mac.to_string(), "02:03:04:05:06:07");
        let refused = ask(&mut state, "two", true, &[(names::DEFAULT_NETWORK, request)]);
        assert!(matches!(refused, Err(Refusal::Refuse(reason)) if reason.contains("provided IP is already allocated")));
        let only_mac = r#"[{"name":"default","namespace":"ovn-kubernetes","mac":"02:03:04:05:06:07"}]"#;
        let refused = ask(&mut state, "two", true, &[(names::DEFAULT_NETWORK, only_mac)]);
        assert!(matches!(refused, Err(Refusal::Refuse(reason)) if reason.contains("MAC address already in use")));
        release(&mut state, "one", &made);
        assert!(ask(&mut state, "two", true, &[(names::DEFAULT_NETWORK, request)]).is_ok());
    }

    #[test]
    fn secondary_attachments_count_up_and_have_no_gateway() {
        let secondary =
            LAYER2.replace("primary", "secondary").replace(r#","defaultGatewayIPs":"172.16.0.2,2014:100:200::2""#, "");
        let mut state = state(&[("blue/blue-network", &secondary)]);
        let made = ask(&mut state, "p", false, &[(names::NETWORKS, "blue-network,blue-network")]).unwrap();
        assert_eq!((made[1].interface.as_str(), made[2].interface.as_str()), ("net1", "net2"));
        assert_ne!(made[1].addresses, made[2].addresses);
        assert_ne!(made[1].port, made[2].port);
        assert!(made[1].gateways.is_empty() && made[1].routes.is_empty());
        assert!(matches!(ask(&mut state, "q", false, &[(names::NETWORKS, "missing")]), Err(Refusal::Wait(_))));
    }

    #[test]
    fn addresses_survive_a_restart_of_the_controller() {
        let mut before = state(&[("blue/blue-network", LAYER2)]);
        ask(&mut before, "other", true, &[]).unwrap();
        let made = ask(&mut before, "p", true, &[]).unwrap();
        let mut after = state(&[("blue/blue-network", LAYER2)]);
        let again = ask(&mut after, "p", true, &[(names::POD_NETWORKS, &annotation::pod_networks(&made))]).unwrap();
        assert_eq!(made, again);
    }
}
