//! Attachment definitions to networks in OVN. A definition written by hand makes a network like any other.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use udn_api::{NetworkAttachmentDefinition, names};

use super::pods::{add_dhcp, add_port};
use super::state::NetworkState;
use super::{Controller, Key};
use crate::definition;
use crate::error::Error;
use crate::layout::Layout;
use crate::ovsdb::Transaction;
use crate::policy::change::Row;
use crate::topology;
use crate::topology::services::Groups;

impl Controller {
    pub(crate) async fn reconcile_definition(&self, key: &str) -> Result<(), Error> {
        let object = self.definitions.get(key);
        let parsed = match &object {
            Some(object) => definition::parse(key, object.spec.config.as_deref().unwrap_or_default()),
            None => Ok(None),
        };
        let new = match parsed {
            Ok(new) => new,
            Err(reason) => {
                if let Some(object) = &object {
                    self.warn(object.as_ref(), "InvalidConfig", &reason).await;
                }
                None
            }
        };
        let mut networks = BTreeSet::new();
        {
            let mut state = self.state();
            let old = match &new {
                Some(new) => state.definitions.insert(key.to_owned(), new.clone()),
                None => state.definitions.remove(key),
            };
            networks.extend(old.into_iter().chain(new).map(|definition| definition.name));
        }
        networks.into_iter().for_each(|network| self.queue.add(Key::Network(network)));
        let namespace = key.split('/').next().unwrap_or_default();
        self.owners_changed(namespace);
        self.services_of_changed(namespace);
        self.wake_waiting_pods();
        self.policies_affected();
        Ok(())
    }

    pub(crate) async fn reconcile_network(&self, name: &str) -> Result<(), Error> {
        let (wanted, exists) = {
            let state = self.state();
            let network = state.networks.get(name);
            let current = network.filter(|network| network.ready).map(|network| network.layout.definition.clone());
            (state.definition_of(name).cloned(), network.map(|_| current))
        };
        match (wanted, exists) {
            (Some(wanted), Some(Some(current))) if wanted == *current => self.number_definitions(name).await,
            (Some(wanted), _) => self.create_network(wanted).await,
            (None, Some(_)) => self.delete_network(name).await,
            (None, None) => Ok(()),
        }
    }

    /// Lays a network out, or anew where its definition changed: rows are replaced in one transaction, ports of its pods
    /// included, which keep their addresses.
    async fn create_network(&self, definition: definition::Definition) -> Result<(), Error> {
        let name = definition.name.clone();
        let numbered = self.number_of(&name);
        let _guard = self.rebuilding.write().await;
        let layout = {
            let mut state = self.state();
            let id = state.networks.get(&name).map_or_else(|| state.free_id(numbered), |network| network.layout.id);
            let layout = Layout { definition: Arc::new(definition), id, nodes: self.default_network.nodes.clone() };
            match state.networks.get_mut(&name) {
                Some(network) => network.change(layout.clone()),
                None => {
                    state.incarnations += 1;
                    let incarnation = state.incarnations;
                    let mut network = NetworkState::new(layout.clone());
                    network.incarnation = incarnation;
                    state.networks.insert(name.clone(), network);
                }
            }
            layout
        };
        let groups = self.groups(&layout).await?;
        match topology::create(&layout, groups.as_ref()) {
            Ok(mut rows) => {
                let policies = self.policies_applied.lock().await;
                let moved = self.plug_again(&mut rows, &layout);
                for (pod, position, row) in &moved {
                    let port =
                        self.state().pods.get(pod).and_then(|pod| Some(pod.attachments.get(*position)?.port.clone()));
                    if let Some(port) = port {
                        policies.join_again(&port, &Row::New(*row), &mut rows);
                    }
                }
                // What is replaced, and leftovers of a former life, go in the same transaction.
                let mut transaction = topology::delete(&name);
                transaction.append(rows);
                let uuids = self.northbound.commit(&format!("creating network {name}"), transaction).await?;
                let mut state = self.state();
                for (pod, position, row) in moved {
                    let port = state.pods.get_mut(&pod).and_then(|pod| pod.ports.get_mut(position));
                    if let (Some(port), Some(uuid)) = (port, uuids.get(row)) {
                        port.clone_from(uuid);
                    }
                }
                drop(state);
                drop(policies);
                tracing::info!(network = name, id = layout.id, "network created");
            }
            Err(reason) => tracing::warn!(network = name, reason, "network has no place on any node"),
        }
        let failed = {
            let mut state = self.state();
            if state.networks.get(&name).is_some_and(|network| !network.ready) {
                self.put_known_addresses_aside(&mut state, &name);
            }
            state.networks.get_mut(&name).map(|network| {
                network.ready = true;
                network.failed_nodes.clone()
            })
        };
        self.owner_changed(&name);
        self.wake_waiting_pods();
        self.networks_changed();
        self.default_network.nodes.iter().for_each(|node| self.queue.add(Key::Node(node.name.clone())));
        for (node, reason) in failed.unwrap_or_default() {
            self.warn_owner(&name, &format!("Error occurred for node {node}: {reason}")).await;
        }
        self.number_definitions(&name).await
    }

    /// Adds the ports that pods of the network have: pod, position among its attachments, and number of the inserted row.
    fn plug_again(&self, rows: &mut Transaction, layout: &Layout) -> Vec<(String, usize, usize)> {
        let mut moved = Vec::new();
        let resolvers = self.resolvers();
        for (key, pod) in &self.state().pods {
            let namespace = key.split('/').next().unwrap_or_default();
            for (position, attachment) in pod.attachments.iter().enumerate() {
                if attachment.network == layout.name() && pod.ports.get(position).is_some() {
                    moved.push((key.clone(), position, rows.inserted()));
                    add_port(rows, layout, namespace, pod, attachment);
                    add_dhcp(rows, layout, attachment, &resolvers);
                }
            }
        }
        moved
    }

    /// The number that a former life of this controller gave a network.
    fn number_of(&self, network: &str) -> Option<u32> {
        let keys: Vec<String> = {
            let state = self.state();
            state
                .definitions
                .iter()
                .filter(|(_, definition)| definition.name == network)
                .map(|(key, _)| key.clone())
                .collect()
        };
        let objects = keys.iter().filter_map(|key| self.definitions.get(key));
        objects.filter_map(|object| object.annotations().get(names::NETWORK_ID)?.parse().ok()).next()
    }

    /// The groups of a network's load balancers; they outlive its being laid out anew.
    async fn groups(&self, layout: &Layout) -> Result<Option<Groups>, Error> {
        if !layout.has_gateways() {
            return Ok(None);
        }
        let known = self.state().networks.get(layout.name()).and_then(|network| network.groups.clone());
        if known.is_some() {
            return Ok(known);
        }
        let purpose = format!("creating groups of load balancers of network {}", layout.name());
        let rows = Groups::create(layout, &self.common_load_balancers);
        let groups = Groups::created(layout, self.northbound.commit(&purpose, rows).await?);
        if let Some(network) = self.state().networks.get_mut(layout.name()) {
            network.groups = Some(groups.clone());
        }
        Ok(Some(groups))
    }

    async fn delete_network(&self, name: &str) -> Result<(), Error> {
        let mut transaction = topology::delete(name);
        if let Some(network) = self.state().networks.get(name).filter(|network| network.groups.is_some()) {
            Groups::delete(&mut transaction, &network.layout);
        }
        self.northbound.commit(&format!("deleting network {name}"), transaction).await?;
        self.state().networks.remove(name);
        self.networks_changed();
        tracing::info!(network = name, "network deleted");
        self.owner_changed(name);
        self.default_network.nodes.iter().for_each(|node| self.queue.add(Key::Node(node.name.clone())));
        Ok(())
    }

    /// Writes the network's number to its attachment definitions, as OVN-Kubernetes does.
    async fn number_definitions(&self, network: &str) -> Result<(), Error> {
        let (id, keys) = {
            let state = self.state();
            let Some(id) = state.networks.get(network).map(|network| network.layout.id.to_string()) else {
                return Ok(());
            };
            let keys: Vec<String> = state
                .definitions
                .iter()
                .filter(|(_, definition)| definition.name == network)
                .map(|(key, _)| key.clone())
                .collect();
            (id, keys)
        };
        for object in keys.iter().filter_map(|key| self.definitions.get(key)) {
            if object.annotations().get(names::NETWORK_ID) == Some(&id) {
                continue;
            }
            let namespace = object.namespace().unwrap_or_default();
            let api: Api<NetworkAttachmentDefinition> = Api::namespaced(self.client.clone(), &namespace);
            let patch = json!({"metadata": {"annotations": {names::NETWORK_ID: id, names::NETWORK_NAME: network}}});
            match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => {
                    result.map_err(Error::api(format!(
                        "annotate the NetworkAttachmentDefinition {}",
                        object.name_any()
                    )))?;
                }
            }
        }
        Ok(())
    }

    async fn warn_owner(&self, network: &str, message: &str) {
        for udn in self.udns.all() {
            if crate::naming::udn_network(&udn.namespace().unwrap_or_default(), &udn.name_any()) == network {
                self.warn(udn.as_ref(), "NetworkAllocationFailed", message).await;
            }
        }
        for cudn in self.cudns.all() {
            if crate::naming::cudn_network(&cudn.name_any()) == network {
                self.warn(cudn.as_ref(), "NetworkAllocationFailed", message).await;
            }
        }
    }
}
