//! What the network knows: networks with their pools, pods with their attachments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;

use super::denied::{Cause, Denied};
use super::standing::Standing;
use crate::address::Mac;
use crate::address::pool::{Pool, PoolError};
use crate::annotation::Attachment;
use crate::definition::Definition;
use crate::layout::Layout;
use crate::service::exposure::Exposure;
use crate::service::rows::Rows;
use crate::topology::services::Groups;

/// Everything behind one lock, never held across an await.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Definitions by attachment definition (`<namespace>/<name>`).
    pub(crate) definitions: BTreeMap<String, Definition>,
    /// Networks by name.
    pub(crate) networks: BTreeMap<String, NetworkState>,
    /// Pods by `<namespace>/<name>`.
    pub(crate) pods: BTreeMap<String, PodState>,
    /// Why a pod waits, by `<namespace>/<name>`.
    pub(crate) waiting: BTreeMap<String, String>,
    /// Services by `<namespace>/<name>`.
    pub(crate) services: BTreeMap<String, ServiceState>,
    /// How many networks were made so far.
    pub(crate) incarnations: u64,
    /// UIDs of the claims (`<namespace>/<name>`) that there are and that may hold addresses.
    pub(crate) claims: BTreeMap<String, String>,
    /// How many pods were decided about so far.
    pub(crate) decisions: u64,
}

/// What OVN and br-ex have of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceState {
    pub(crate) rows: Rows,
    /// UUIDs of load balancers, by name.
    pub(crate) uuids: BTreeMap<String, String>,
    /// The networks whose groups the load balancers are in, and which of the networks of that name it was.
    pub(crate) incarnations: BTreeMap<String, u64>,
    pub(crate) exposures: Vec<Exposure>,
    /// What its owner has been told: why it has no external addresses, who announces them.
    pub(crate) complaint: Option<String>,
    pub(crate) announcer: Option<String>,
}

/// A network and who has what of it.
#[derive(Debug)]
pub(crate) struct NetworkState {
    pub(crate) layout: Layout,
    /// Whether OVN has it.
    pub(crate) ready: bool,
    /// Groups of load balancers, as soon as OVN has them.
    pub(crate) groups: Option<Groups>,
    /// Tells the network from an earlier one of the same name.
    pub(crate) incarnation: u64,
    /// Nodes without subnet, with the reason.
    pub(crate) failed_nodes: BTreeMap<String, String>,
    pools: HashMap<IpNet, Pool>,
    macs: HashMap<Mac, String>,
}

/// A pod that has its attachments.
#[derive(Clone, Debug)]
pub(crate) struct PodState {
    pub(crate) uid: String,
    /// The pod as it was last seen: its policies stay with its ports until those are gone, too.
    pub(crate) pod: Arc<Pod>,
    pub(crate) node: String,
    pub(crate) attachments: Vec<Attachment>,
    /// UUIDs of logical switch ports, in the order of the attachments; empty until OVN has them.
    pub(crate) ports: Vec<String>,
    /// The open-default-ports annotation that is in force, and its rules.
    pub(crate) open_ports: Option<(String, Vec<String>)>,
    /// Whether its port is the one by which its virtual machine is reached.
    pub(crate) standing: Standing,
    /// Which of all decisions this one was: tells pods apart that were created within one second.
    pub(crate) decision: u64,
}

impl PodState {
    /// The virtual machine (`<namespace>/<name>`) whose guest has the pod's primary addresses.
    pub(crate) fn guest(&self) -> Option<&str> {
        self.attachments.iter().find_map(|attachment| attachment.guest.as_deref())
    }
}

/// Addresses that somebody was given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Given {
    pub(crate) addresses: Vec<IpNet>,
    /// Those that the owner did not have before.
    pub(crate) fresh: Vec<IpAddr>,
}

impl State {
    /// Takes back what a claim holds, if it is gone and no pod has its addresses any more.
    pub(crate) fn release_unused_claim(&mut self, uid: &str) {
        let there = self.claims.values().any(|known| known == uid);
        let held = |pod: &PodState| pod.attachments.iter().filter_map(|it| it.claim.as_ref()).any(|it| it.uid == uid);
        if !there && !self.pods.values().any(held) {
            let owner = claim_owner(uid);
            self.networks.values_mut().for_each(|network| network.release(&owner));
        }
    }

    /// The preferred number, or else the smallest, that no network has; 0 is the default network's.
    pub(crate) fn free_id(&self, preferred: Option<u32>) -> u32 {
        let taken: BTreeSet<u32> = self.networks.values().map(|network| network.layout.id).collect();
        let free = |id: &u32| !taken.contains(id);
        preferred.filter(free).or_else(|| (1..).find(free)).unwrap_or(u32::MAX)
    }

    /// The definition of a network, from whichever attachment definition comes first.
    pub(crate) fn definition_of(&self, network: &str) -> Option<&Definition> {
        self.definitions.values().find(|definition| definition.name == network)
    }

    /// The primary network of a namespace and its attachment definition.
    pub(crate) fn primary_of(&self, namespace: &str) -> Option<(&str, &Definition)> {
        let prefix = format!("{namespace}/");
        self.definitions
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .find(|(_, definition)| definition.primary)
            .map(|(key, definition)| (key.as_str(), definition))
    }
}

impl NetworkState {
    pub(crate) fn new(layout: Layout) -> Self {
        let failed = |node: &crate::layout::Node| layout.subnets(node).err().map(|reason| (node.name.clone(), reason));
        let failed_nodes = layout.nodes.iter().filter_map(failed).collect();
        let mut state = Self {
            failed_nodes,
            ready: false,
            groups: None,
            incarnation: 0,
            pools: HashMap::new(),
            macs: HashMap::new(),
            layout,
        };
        state.reserve_gateway_macs();
        state
    }

    /// Lays the network out anew; who has an address keeps it.
    pub(crate) fn change(&mut self, layout: Layout) {
        let fresh = Self::new(layout);
        self.layout = fresh.layout;
        self.failed_nodes = fresh.failed_nodes;
        self.macs.extend(fresh.macs);
    }

    /// Nobody may ask for the MAC of a gateway or management port.
    fn reserve_gateway_macs(&mut self) {
        for node in self.layout.nodes.iter() {
            for subnet in self.layout.subnets(node).unwrap_or_default() {
                let reserved = self.layout.never_given(subnet);
                for address in [self.layout.gateway(subnet), self.layout.management(subnet)].into_iter().flatten() {
                    if reserved.contains(&address.into()) {
                        self.macs.insert(Mac::of(address), String::new());
                    }
                }
            }
        }
    }

    fn pool(&mut self, subnet: IpNet) -> &mut Pool {
        let (layout, reserved) = (&self.layout, &self.layout.definition.reserved);
        self.pools.entry(subnet).or_insert_with(|| Pool::new(subnet, layout.never_given(subnet), reserved.clone()))
    }

    /// Gives `owner` an address of each of `subnets`: the requested, else the next free. All or nothing.
    pub(crate) fn allocate(&mut self, owner: &str, subnets: &[IpNet], requested: &[IpAddr]) -> Result<Given, Denied> {
        let mut given = Given::default();
        let mut give = || -> Result<(), Denied> {
            for address in requested {
                if !subnets.iter().any(|subnet| subnet.contains(address)) {
                    let subnets = subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    return Err(Denied::internal(format!(
                        "requested IP {address} is not in the network's subnets {subnets}"
                    )));
                }
            }
            for subnet in subnets {
                let pool = self.pool(*subnet);
                let wanted = requested.iter().find(|address| subnet.contains(*address));
                let (address, fresh) = match wanted {
                    Some(address) => pool.claim(owner, *address).map(|fresh| (*address, fresh)),
                    None => pool.allocate(owner).map(|address| (address, true)),
                }
                .map_err(|error| {
                    let cause = match &error {
                        PoolError::Taken | PoolError::Reserved(_) => Cause::AddressConflict,
                        PoolError::Full => Cause::Exhausted,
                        PoolError::Outside(..) => Cause::Internal,
                    };
                    let message = match wanted {
                        Some(address) => format!("failed to ensure requested or annotated IP {address}: {error}"),
                        None => format!("failed to assign an address of {}: {error}", pool.subnet()),
                    };
                    Denied { cause, message }
                })?;
                given.addresses.extend(IpNet::new(address, subnet.prefix_len()).ok());
                given.fresh.extend(fresh.then_some(address));
            }
            Ok(())
        };
        match give() {
            Ok(()) => Ok(given),
            Err(denied) => {
                self.give_back(&given.fresh);
                Err(denied)
            }
        }
    }

    /// Takes back these addresses.
    pub(crate) fn give_back(&mut self, addresses: &[IpAddr]) {
        for pool in self.pools.values_mut() {
            let subnet = pool.subnet();
            addresses.iter().filter(|address| subnet.contains(*address)).for_each(|address| pool.free(*address));
        }
    }

    /// What `owner` has of `subnets`.
    pub(crate) fn held(&mut self, owner: &str, subnets: &[IpNet]) -> Vec<IpAddr> {
        subnets.iter().filter_map(|subnet| self.pool(*subnet).of(owner)).collect()
    }

    /// Puts addresses of a former life of this controller aside for `owner`, before anybody asks for new ones.
    pub(crate) fn put_aside(&mut self, owner: &str, addresses: &[IpAddr]) {
        let layout = &self.layout;
        let mut subnets: Vec<IpNet> =
            layout.nodes.iter().flat_map(|node| layout.subnets(node).unwrap_or_default()).collect();
        subnets.sort_unstable();
        subnets.dedup();
        for address in addresses {
            let Some(subnet) = subnets.iter().find(|subnet| subnet.contains(address)) else { continue };
            if let Err(error) = self.pool(*subnet).claim(owner, *address) {
                tracing::warn!(network = self.layout.name(), %address, owner, %error, "an address is held twice");
            }
        }
    }

    /// Gives `owner` this MAC.
    pub(crate) fn claim_mac(&mut self, owner: &str, mac: Mac) -> Result<(), Denied> {
        match self.macs.get(&mac) {
            Some(other) if other != owner => Err(Denied {
                cause: Cause::MacConflict,
                message: format!("failed to reserve MAC address {mac}: MAC address already in use"),
            }),
            _ => {
                self.macs.insert(mac, owner.to_owned());
                Ok(())
            }
        }
    }

    /// Takes back everything of `owner`.
    pub(crate) fn release(&mut self, owner: &str) {
        self.pools.values_mut().for_each(|pool| pool.release(owner));
        self.macs.retain(|_, other| other != owner);
    }
}

/// Who holds the addresses of a claim.
pub(crate) fn claim_owner(uid: &str) -> String {
    format!("claim {uid}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER2, layout};

    #[test]
    fn gateways_and_management_ports_are_never_given() {
        let mut network = NetworkState::new(layout(LAYER2, 1));
        let subnets = network.layout.subnets(&network.layout.nodes[0].clone()).unwrap();
        let given = network.allocate("a", &subnets, &[]).unwrap().addresses;
        assert_eq!(given.iter().map(ToString::to_string).collect::<Vec<_>>(), ["172.16.0.3/16", "2014:100:200::3/60"]);
        assert!(network.allocate("b", &subnets, &["172.16.0.1".parse().unwrap()]).is_err());
    }

    #[test]
    fn a_duplicate_is_refused_and_leaves_nothing() {
        let mut network = NetworkState::new(layout(LAYER2, 1));
        let subnets = network.layout.subnets(&network.layout.nodes[0].clone()).unwrap();
        let wanted = ["172.16.0.9".parse().unwrap(), "2014:100:200::9".parse().unwrap()];
        network.allocate("a", &subnets, &wanted).unwrap();
        let half = [wanted[1], "172.16.0.8".parse().unwrap()];
        let denied = network.allocate("b", &subnets, &half).unwrap_err();
        assert_eq!(denied.cause, Cause::AddressConflict);
        assert!(denied.message.contains("provided IP is already allocated"));
        assert!(
            network.allocate("c", &subnets, &["172.16.0.8".parse().unwrap()]).is_ok(),
            "the refused pod kept an address"
        );
        network.claim_mac("a", Mac([2, 0, 0, 0, 0, 1])).unwrap();
        let denied = network.claim_mac("b", Mac([2, 0, 0, 0, 0, 1])).unwrap_err();
        assert!(denied.cause == Cause::MacConflict && denied.message.contains("MAC address already in use"));
        network.release("a");
        assert!(network.allocate("b", &subnets, &wanted).is_ok());
        assert!(network.claim_mac("b", Mac([2, 0, 0, 0, 0, 1])).is_ok());
    }
}
