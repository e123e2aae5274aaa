//! Services to load balancers in OVN and flows of br-ex.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use udn_api::names;

use super::cache::key_of;
use super::state::ServiceState;
use super::{Controller, Key, mirror};
use crate::error::Error;
use crate::layout::Layout;
use crate::naming::{DEFAULT_NETWORK, nad_key};
use crate::network::API_SERVER;
use crate::ovsdb::Transaction;
use crate::service::change::change;
use crate::service::claims::Claim;
use crate::service::exposure::{self, Exposures};
use crate::service::facts::{self, Facts};
use crate::service::rows::{Rows, rows};
use crate::service::{MIRRORED_SERVICE_NAME, SERVICE_NAME};

/// The part of the cluster that answers for addresses, as MetalLB calls itself.
const SPEAKER: &str = "metallb-speaker";

/// What a service should be, and the networks whose groups that names.
struct Wanted {
    rows: Rows,
    incarnations: BTreeMap<String, u64>,
    exposures: Vec<exposure::Exposure>,
    announcer: Option<String>,
}

impl Controller {
    pub(crate) async fn reconcile_service(&self, key: &str) -> Result<(), Error> {
        let service = self.services.get(key);
        let old = self.state().services.get(key).cloned().unwrap_or_default();
        let (wanted, complaint) = match &service {
            Some(service) => self.wanted(service),
            None => (None, None),
        };
        let wanted = wanted.unwrap_or(Wanted {
            rows: Rows::default(),
            incarnations: BTreeMap::new(),
            exposures: Vec::new(),
            announcer: None,
        });
        let uuids = self.write_rows(key, &old, &wanted).await?;
        if let Some(service) = &service {
            if let Some(reason) = complaint.as_ref().filter(|reason| old.complaint.as_ref() != Some(reason)) {
                self.warn(service.as_ref(), "ExternalAddressConflict", reason).await;
            }
            if let Some(node) = wanted.announcer.as_ref().filter(|node| old.announcer.as_ref() != Some(node)) {
                let message = format!("announcing from node \"{node}\" with protocol \"layer2\"");
                self.tell(service.as_ref(), SPEAKER, "Normal", "nodeAssigned", &message).await;
            }
        }
        {
            let mut state = self.state();
            if service.is_some() {
                let Wanted { rows, incarnations, exposures, announcer } = wanted;
                let known = ServiceState { rows, uuids, incarnations, exposures, complaint, announcer };
                state.services.insert(key.to_owned(), known);
            } else {
                state.services.remove(key);
            }
        }
        self.publish_exposures();
        Ok(())
    }

    /// What a service should be; nothing where it has no network or needs no load balancer. And why it lacks its external
    /// addresses.
    fn wanted(&self, service: &Service) -> (Option<Wanted>, Option<String>) {
        let namespace = service.namespace().unwrap_or_default();
        let Some(network) = self.network_of(&namespace) else { return (None, None) };
        let slices = self.slices_of(service, &network);
        let Some(mut facts) = Facts::of(service, &slices) else { return (None, None) };
        if facts.key == API_SERVER && !self.options.api_server.is_empty() {
            facts.lead_to(&self.options.api_server);
        }
        let complaint = self.refused(service, &network);
        if complaint.is_some() {
            facts.external.clear();
        }
        let (foreign, incarnations) = self.networks_seen(&network);
        let allowed = self.options.allowed_default_services.contains(&facts.key);
        let announcer = exposure::announcer(&facts, &network.nodes).map(str::to_owned);
        let rows = rows(&facts, &network, &foreign);
        // Only networks whose groups are named: others may come and go without touching anything.
        let groups: BTreeSet<&String> = rows.load_balancers.values().flat_map(|row| &row.groups).collect();
        let named = |layout: &&Layout| groups.contains(&layout.switch_group()) || layout.name() == network.name();
        let named: BTreeSet<&str> = foreign.iter().chain([&network]).filter(named).map(Layout::name).collect();
        let incarnations = incarnations.into_iter().filter(|(name, _)| named.contains(name.as_str())).collect();
        let exposures = exposure::of(&facts, &network, allowed);
        (Some(Wanted { rows, incarnations, exposures, announcer }), complaint)
    }

    /// Writes what differs, in one transaction; returns the UUIDs of the load balancers that are there now.
    async fn write_rows(
        &self,
        key: &str,
        old: &ServiceState,
        wanted: &Wanted,
    ) -> Result<BTreeMap<String, String>, Error> {
        let recreated =
            wanted.incarnations.iter().any(|(name, it)| old.incarnations.get(name).is_some_and(|was| was != it));
        let (transaction, inserted) = if recreated {
            // The groups are others now, and empty.
            let mut gone = Transaction::default();
            old.rows.load_balancers.keys().for_each(|name| gone.delete("Load_Balancer", name));
            let kept = Rows { variables: old.rows.variables.clone(), ..Rows::default() };
            let (rows, inserted) = change(key, &kept, &wanted.rows, &old.uuids);
            gone.append(rows);
            (gone, inserted)
        } else {
            change(key, &old.rows, &wanted.rows, &old.uuids)
        };
        let made = self.northbound.commit(&format!("balancing service {key}"), transaction).await?;
        let mut uuids = old.uuids.clone();
        uuids.retain(|name, _| wanted.rows.load_balancers.contains_key(name));
        uuids.extend(inserted.into_iter().zip(made));
        Ok(uuids)
    }

    /// The primary network of a namespace, if it is there.
    pub(crate) fn network_of(&self, namespace: &str) -> Option<Layout> {
        let labelled = self.namespaces.get(namespace)?.labels().contains_key(names::PRIMARY_NETWORK_LABEL);
        let state = self.state();
        let name = if labelled { &state.primary_of(namespace)?.1.name } else { DEFAULT_NETWORK };
        let network = state.networks.get(name).filter(|network| network.ready && network.groups.is_some())?;
        Some(network.layout.clone())
    }

    /// The other primary networks, and which of the networks of its name each is.
    fn networks_seen(&self, own: &Layout) -> (Vec<Layout>, BTreeMap<String, u64>) {
        let state = self.state();
        let ready = || state.networks.values().filter(|network| network.ready && network.groups.is_some());
        let other = |layout: &&Layout| !layout.is_default() && layout.name() != own.name() && layout.has_family(true);
        let foreign = ready().map(|network| &network.layout).filter(other).cloned().collect();
        (foreign, ready().map(|network| (network.layout.name().to_owned(), network.incarnation)).collect())
    }

    /// The slices with a service's endpoints on its own network.
    fn slices_of(&self, service: &Service, network: &Layout) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices.in_namespace(&service.namespace().unwrap_or_default());
        let name = service.name_any();
        slices.retain(|slice| {
            if network.is_default() {
                slice.labels().get(SERVICE_NAME) == Some(&name)
            } else {
                slice.labels().get(MIRRORED_SERVICE_NAME) == Some(&name)
                    && slice.annotations().get(mirror::NETWORK).map(String::as_str) == Some(network.name())
            }
        });
        slices
    }

    /// Why a service does not get its external addresses.
    fn refused(&self, service: &Service, network: &Layout) -> Option<String> {
        let claim = Claim { service, network: network.name() };
        let mine = facts::external(service, service.spec.as_ref()?);
        if mine.is_empty() {
            return None;
        }
        let uid = service.uid();
        self.services.all().iter().filter(|other| other.uid() != uid).find_map(|other| {
            let theirs = self.network_of(&other.namespace().unwrap_or_default())?;
            claim.refused_by(&Claim { service: other, network: theirs.name() })
        })
    }

    pub(crate) fn service_told(&self, service: &Service) {
        self.queue.add(Key::Service(key_of(service)));
        // Whoever shares an address may have lost or won it; what is gone or changed is not in the cache any more.
        let shares = |other: &Arc<Service>| {
            let spec = other.spec.as_ref();
            spec.is_some_and(|spec| spec.external_ips.is_some() || spec.type_.as_deref() == Some("LoadBalancer"))
        };
        let refused: Vec<String> = {
            let state = self.state();
            let refused = state.services.iter().filter(|(_, known)| known.complaint.is_some());
            refused.map(|(key, _)| key.clone()).collect()
        };
        refused.into_iter().for_each(|key| self.queue.add(Key::Service(key)));
        let Some(spec) = service.spec.as_ref() else { return };
        let mine = facts::external(service, spec);
        if mine.is_empty() {
            return;
        }
        for other in self.services.all().iter().filter(|other| shares(other)) {
            let theirs = other.spec.as_ref().map(|spec| facts::external(other, spec)).unwrap_or_default();
            if theirs.iter().any(|address| mine.contains(address)) {
                self.queue.add(Key::Service(key_of(other.as_ref())));
            }
        }
    }

    pub(crate) fn slice_told(&self, slice: &EndpointSlice) {
        let namespace = slice.namespace().unwrap_or_default();
        for label in [SERVICE_NAME, MIRRORED_SERVICE_NAME] {
            if let Some(service) = slice.labels().get(label) {
                self.queue.add(Key::Service(nad_key(&namespace, service)));
            }
        }
        if let Some(source) = mirror::source_of(slice) {
            self.queue.add(Key::Mirror(nad_key(&namespace, &source)));
        }
    }

    /// A namespace's services may have another network now.
    pub(crate) fn services_of_changed(&self, namespace: &str) {
        for service in self.services.in_namespace(namespace) {
            self.queue.add(Key::Service(key_of(service.as_ref())));
        }
        for slice in self.slices.in_namespace(namespace) {
            if let Some(source) = mirror::source_of(&slice) {
                self.queue.add(Key::Mirror(nad_key(namespace, &source)));
            }
        }
    }

    /// Networks came or went: services of each concern the others.
    pub(crate) fn networks_changed(&self) {
        self.services.all().iter().for_each(|service| self.queue.add(Key::Service(key_of(service.as_ref()))));
        self.publish_exposures();
    }

    /// Tells the nodes what br-ex has to know now.
    fn publish_exposures(&self) {
        let exposures = {
            let state = self.state();
            let networks = state.networks.values().filter(|network| network.ready && network.layout.has_gateways());
            let networks = networks.filter(|network| !network.layout.is_default()).map(|network| {
                let layout = &network.layout;
                let node = layout.nodes.first().filter(|_| layout.has_family(true));
                (layout.name().to_owned(), node.map(|node| layout.egress_address(node, true)))
            });
            let services = state.services.iter().filter(|(_, known)| !known.exposures.is_empty());
            Exposures {
                networks: networks.collect(),
                services: services.map(|(key, known)| (key.clone(), known.exposures.clone())).collect(),
            }
        };
        self.exposures.send_if_modified(|current| {
            let changed = **current != exposures;
            if changed {
                *current = Arc::new(exposures);
            }
            changed
        });
    }
}
