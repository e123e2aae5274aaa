//! UDN and CUDN to attachment definitions, with finalizers and conditions.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};
use serde_json::json;
use udn_api::{
    ClusterUserDefinedNetwork, NetworkAttachmentDefinition, NetworkAttachmentDefinitionSpec, NetworkRole,
    UserDefinedNetwork, names,
};

use super::status::Wanted;
use super::{Controller, Key};
use crate::error::Error;
use crate::{annotation, definition, naming};

/// Why an attachment definition is not as it should be: said in a condition, then tried again when something changes.
type Sync<T> = Result<T, String>;

impl Controller {
    pub(crate) async fn reconcile_udn(&self, key: &str) -> Result<(), Error> {
        let Some(udn) = self.udns.get(key) else { return Ok(()) };
        let (namespace, name) = (udn.namespace().unwrap_or_default(), udn.name_any());
        let api: Api<UserDefinedNetwork> = Api::namespaced(self.client.clone(), &namespace);
        let network = naming::udn_network(&namespace, &name);
        let current = udn.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        if udn.metadata.deletion_timestamp.is_some() {
            return match self.remove_definition(udn.as_ref(), &namespace, &name).await? {
                Err(reason) => {
                    self.set_conditions(&api, &name, &current, &[Wanted::not_created("SyncError", reason)]).await
                }
                Ok(()) if self.is_gone(&network, &naming::nad_key(&namespace, &name)) => {
                    self.unprotect(&api, udn.as_ref()).await
                }
                Ok(()) => Ok(()),
            };
        }
        self.protect(&api, udn.as_ref()).await?;
        let config = definition::render_udn(&network, &naming::nad_key(&namespace, &name), &udn.spec);
        let primary = udn.spec.role() == Some(NetworkRole::Primary);
        let made = match config {
            Ok(config) => self.ensure_definition(udn.as_ref(), &namespace, &name, &config, primary).await?,
            Err(reason) => Err(reason),
        };
        let mut wanted = vec![match made {
            Ok(definition) if definition.metadata.deletion_timestamp.is_some() => Wanted::not_created(
                "NetworkAttachmentDefinitionDeleted",
                "NetworkAttachmentDefinition is being deleted".into(),
            ),
            Ok(_) => Wanted::created("NetworkAttachmentDefinition has been created".into()),
            Err(reason) => Wanted::not_created("SyncError", reason),
        }];
        wanted.extend(self.allocation(&network));
        self.set_conditions(&api, &name, &current, &wanted).await
    }

    pub(crate) async fn reconcile_cudn(&self, name: &str) -> Result<(), Error> {
        let Some(cudn) = self.cudns.get(name) else { return Ok(()) };
        let api: Api<ClusterUserDefinedNetwork> = Api::all(self.client.clone());
        let network = naming::cudn_network(name);
        let current = cudn.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let deleting = cudn.metadata.deletion_timestamp.is_some();
        if !deleting {
            self.protect(&api, cudn.as_ref()).await?;
        }
        let selected = if deleting { Vec::new() } else { self.selected(&cudn.spec.namespace_selector) };
        let primary = cudn.spec.network.role() == Some(NetworkRole::Primary);
        let (mut namespaces, mut leaving, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for namespace in &selected {
            let config = definition::render_cudn(&network, &naming::nad_key(namespace, name), &cudn.spec);
            let made = match config {
                Ok(config) => self.ensure_definition(cudn.as_ref(), namespace, name, &config, primary).await?,
                Err(reason) => Err(reason),
            };
            match made {
                Ok(definition) if definition.metadata.deletion_timestamp.is_some() => {
                    leaving.push(naming::nad_key(namespace, name))
                }
                Ok(_) => namespaces.push(namespace.clone()),
                Err(reason) => reasons.push(reason),
            }
        }
        let mine = self
            .definitions
            .all()
            .into_iter()
            .filter(|definition| definition.name_any() == name && controls(cudn.as_ref(), definition));
        for definition in mine {
            let namespace = definition.namespace().unwrap_or_default();
            if selected.contains(&namespace) {
                continue;
            }
            if let Err(reason) = self.remove_definition(cudn.as_ref(), &namespace, name).await? {
                reasons.push(reason);
            }
        }
        if deleting && reasons.is_empty() {
            let any_left = self
                .definitions
                .all()
                .iter()
                .any(|definition| definition.name_any() == name && controls(cudn.as_ref(), definition));
            let network_left = self.state().networks.contains_key(&network);
            return if any_left || network_left { Ok(()) } else { self.unprotect(&api, cudn.as_ref()).await };
        }
        let created = if let Some(reason) = Some(reasons.join("\n")).filter(|text| !text.is_empty()) {
            Wanted::not_created("NetworkAttachmentDefinitionSyncError", reason)
        } else if !leaving.is_empty() {
            Wanted::not_created(
                "NetworkAttachmentDefinitionDeleted",
                format!("NetworkAttachmentDefinition are being deleted: [{}]", leaving.join(" ")),
            )
        } else {
            Wanted::created(format!(
                "NetworkAttachmentDefinition has been created in following namespaces: [{}]",
                namespaces.join(", ")
            ))
        };
        let mut wanted = vec![created];
        wanted.extend(self.allocation(&network));
        self.set_conditions(&api, name, &current, &wanted).await
    }

    /// Namespaces that a selector picks, sorted; those on their way out are not picked.
    fn selected(&self, selector: &LabelSelector) -> Vec<String> {
        let Ok(selector) = Selector::try_from(selector.clone()) else { return Vec::new() };
        let matches = |labels: &std::collections::BTreeMap<String, String>| selector.matches(labels);
        let namespaces = self.namespaces.all();
        let picked = namespaces
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none() && matches(namespace.labels()));
        picked.map(|namespace| namespace.name_any()).collect()
    }

    /// The condition on allocation, once the network has been laid out.
    fn allocation(&self, network: &str) -> Option<Wanted> {
        let state = self.state();
        let network = state.networks.get(network)?;
        match network.failed_nodes.keys().next() {
            Some(node) => Some(Wanted::not_allocated(node)),
            None => network.ready.then(Wanted::allocated),
        }
    }

    /// Whether neither the attachment definition nor the network is left.
    fn is_gone(&self, network: &str, definition: &str) -> bool {
        self.definitions.get(definition).is_none() && !self.state().networks.contains_key(network)
    }

    /// Creates or updates an attachment definition of `owner`.
    async fn ensure_definition<K>(
        &self,
        owner: &K,
        namespace: &str,
        name: &str,
        config: &str,
        primary: bool,
    ) -> Result<Sync<Arc<NetworkAttachmentDefinition>>, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        if primary {
            let labelled =
                self.namespaces.get(namespace).is_some_and(|it| it.labels().contains_key(names::PRIMARY_NETWORK_LABEL));
            if !labelled {
                return Ok(Err(super::plan::invalid_primary(namespace)));
            }
        }
        let key = naming::nad_key(namespace, name);
        let api: Api<NetworkAttachmentDefinition> = Api::namespaced(self.client.clone(), namespace);
        // Held until the new definition is known: two networks must not both find the namespace free.
        let _guard = self.creating.lock().await;
        if let Some(existing) = self.definitions.get(&key) {
            if !controls(owner, &existing) {
                return Ok(Err(format!(
                    "foreign NetworkAttachmentDefinition with the desired name already exist [{key}]"
                )));
            }
            if existing.spec.config.as_deref() == Some(config) || existing.metadata.deletion_timestamp.is_some() {
                return Ok(Ok(existing));
            }
            let patch = Patch::Merge(json!({"spec": {"config": config}}));
            let patched = api.patch(name, &PatchParams::default(), &patch).await;
            return patched
                .map(|it| Ok(Arc::new(it)))
                .map_err(Error::api(format!("update the NetworkAttachmentDefinition {key}")));
        }
        if primary {
            let other = self.definitions.in_namespace(namespace).into_iter().find(|other| is_primary(other));
            if let Some(other) = other {
                return Ok(Err(format!(
                    "primary network already exist in namespace \"{namespace}\": \"{}\"",
                    other.name_any()
                )));
            }
        }
        let mut definition =
            NetworkAttachmentDefinition::new(name, NetworkAttachmentDefinitionSpec { config: Some(config.into()) });
        definition.metadata.namespace = Some(namespace.into());
        definition.metadata.finalizers = Some(vec![names::PROTECTION_FINALIZER.into()]);
        definition.metadata.owner_references = owner.controller_owner_ref(&()).map(|reference| vec![reference]);
        let labels = definition.labels_mut();
        labels.extend(owner.labels().clone());
        labels.insert(names::MANAGED_LABEL.into(), String::new());
        let own = owner
            .annotations()
            .iter()
            .filter(|(name, _)| !name.starts_with("k8s.ovn.org/") && !name.starts_with("kubectl.kubernetes.io/"));
        definition.annotations_mut().extend(own.map(|(name, value)| (name.clone(), value.clone())));
        match api.create(&PostParams::default(), &definition).await {
            Ok(created) => {
                self.definition_created(&key).await;
                Ok(Ok(Arc::new(created)))
            }
            // Somebody was faster, or the namespace is on its way out: the watch will tell.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => {
                Ok(Err(format!("failed to create NetworkAttachmentDefinition: {}", status.message)))
            }
            Err(error) => Err(Error::api(format!("create the NetworkAttachmentDefinition {key}"))(error)),
        }
    }

    /// Waits until the watch has told of a definition just created, for a moment: what is asked next of the cache must see it.
    async fn definition_created(&self, key: &str) {
        let told = async {
            while self.definitions.get(key).is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), told).await;
    }

    /// Removes an attachment definition that no pod uses.
    async fn remove_definition<K>(&self, owner: &K, namespace: &str, name: &str) -> Result<Sync<()>, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let key = naming::nad_key(namespace, name);
        let Some(definition) = self.definitions.get(&key).filter(|definition| controls(owner, definition)) else {
            return Ok(Ok(()));
        };
        let pods = self.pods_using(namespace, &key);
        if !pods.is_empty() {
            return Ok(Err(format!(
                "failed to delete NetworkAttachmentDefinition [{key}]: network in use by the following pods: [{}]",
                pods.join(" ")
            )));
        }
        let api: Api<NetworkAttachmentDefinition> = Api::namespaced(self.client.clone(), namespace);
        self.unprotect(&api, definition.as_ref()).await?;
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Ok(())),
            result => {
                result.map(|_| Ok(())).map_err(Error::api(format!("delete the NetworkAttachmentDefinition {key}")))
            }
        }
    }

    /// Pods of the namespace whose annotation names the attachment definition; sorted.
    fn pods_using(&self, namespace: &str, definition: &str) -> Vec<String> {
        let pods = self.pods.in_namespace(namespace);
        let using = pods.iter().filter(|pod| annotation::read_pod_networks(pod.annotations()).contains_key(definition));
        using.map(|pod| naming::nad_key(namespace, &pod.name_any())).collect()
    }

    async fn protect<K>(&self, api: &Api<K>, object: &K) -> Result<(), Error>
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        if object.finalizers().iter().any(|finalizer| finalizer == names::PROTECTION_FINALIZER) {
            return Ok(());
        }
        let mut finalizers = object.finalizers().to_vec();
        finalizers.push(names::PROTECTION_FINALIZER.into());
        self.set_finalizers(api, object, &finalizers).await
    }

    async fn unprotect<K>(&self, api: &Api<K>, object: &K) -> Result<(), Error>
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let finalizers: Vec<String> =
            object.finalizers().iter().filter(|finalizer| *finalizer != names::PROTECTION_FINALIZER).cloned().collect();
        if finalizers.len() == object.finalizers().len() {
            Ok(())
        } else {
            self.set_finalizers(api, object, &finalizers).await
        }
    }

    async fn set_finalizers<K>(&self, api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), Error>
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        // With the resource version: a list is replaced as a whole, and must be the one that was read.
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
        match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(|_| ()).map_err(Error::api(format!("change the finalizers of {}", object.name_any()))),
        }
    }

    /// Who owns a network: told when it was laid out or is gone.
    pub(crate) fn owner_changed(&self, network: &str) {
        for udn in self.udns.all() {
            let (namespace, name) = (udn.namespace().unwrap_or_default(), udn.name_any());
            if naming::udn_network(&namespace, &name) == network {
                self.queue.add(Key::Udn(naming::nad_key(&namespace, &name)));
            }
        }
        for cudn in self.cudns.all() {
            if naming::cudn_network(&cudn.name_any()) == network {
                self.queue.add(Key::Cudn(cudn.name_any()));
            }
        }
    }
}

fn controls<K: Resource<DynamicType = ()>>(owner: &K, definition: &NetworkAttachmentDefinition) -> bool {
    let uid = owner.meta().uid.as_deref();
    definition
        .owner_references()
        .iter()
        .any(|reference| reference.controller == Some(true) && Some(reference.uid.as_str()) == uid)
}

fn is_primary(definition: &NetworkAttachmentDefinition) -> bool {
    let config = definition.spec.config.as_deref().unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    config["type"] == "ovn-k8s-cni-overlay" && config["role"] == "primary"
}
