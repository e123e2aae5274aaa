//! Mirrored EndpointSlices: what the cluster's own slices say of a service whose pods have another primary network, with
//! the pods' addresses there. As OVN-Kubernetes makes them, names included.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use udn_api::names;

use super::cache::key_of;
use super::standing::Standing;
use super::{Controller, Key};
use crate::error::Error;
use crate::naming::nad_key;
use crate::service::{MIRRORED_SERVICE_NAME, SERVICE_NAME};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who makes the slices that are mirrored.
const DEFAULT_MANAGER: &str = "endpointslice-controller.k8s.io";
/// Who makes the mirrored ones.
const MANAGER: &str = "endpointslice-mirror-controller.k8s.ovn.org";
/// Annotation: the network of the addresses.
pub(crate) const NETWORK: &str = "k8s.ovn.org/endpointslice-network";
/// Annotation: the slice that is mirrored.
const SOURCE: &str = "k8s.ovn.org/source-endpointslice";
/// Annotation: its resource version.
const SOURCE_VERSION: &str = "k8s.ovn.org/source-endpointslice-version";

/// The name of the slice that this one mirrors, or that is mirrored: this one itself.
pub(crate) fn source_of(slice: &EndpointSlice) -> Option<String> {
    match slice.labels().get(MANAGED_BY).map(String::as_str) {
        Some(DEFAULT_MANAGER) => Some(slice.name_any()),
        Some(MANAGER) => slice.annotations().get(SOURCE).cloned(),
        _ => None,
    }
}

fn is_mirror(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

/// What a mirrored slice's name begins with: the network, where that makes a name.
fn generate_name(network: &str, source: &EndpointSlice) -> String {
    let own = source.metadata.generate_name.clone().unwrap_or_else(|| format!("{}-", source.name_any()));
    if network.contains('_') { own } else { format!("{network}-{own}") }
}

/// A pod that an endpoint stands for is not decided about yet.
struct NotYet;

impl Controller {
    pub(crate) async fn reconcile_mirror(&self, key: &str) -> Result<(), Error> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let mut mirrors = self.slices.in_namespace(namespace);
        mirrors
            .retain(|slice| is_mirror(slice) && slice.annotations().get(SOURCE).is_some_and(|source| source == name));
        let source = self.slices.get(key).filter(|source| {
            source_of(source).as_deref() == Some(name)
                && source.address_type != "FQDN"
                && source.metadata.deletion_timestamp.is_none()
        });
        let labelled =
            self.namespaces.get(namespace).is_some_and(|it| it.labels().contains_key(names::PRIMARY_NETWORK_LABEL));
        let network = {
            let state = self.state();
            let primary = state.primary_of(namespace).filter(|_| labelled);
            primary.map(|(nad, definition)| (nad.to_owned(), definition.name.clone()))
        };
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let (Some(source), Some((nad, network))) = (source, network) else {
            for mirror in mirrors {
                self.delete_mirror(&api, &mirror).await?;
            }
            return Ok(());
        };
        // Waiting is not failing: the pod's own reconciliation comes back to this slice.
        let Ok(endpoints) = self.mirrored(&source, &nad) else { return Ok(()) };
        let labels = [
            (MANAGED_BY.to_owned(), MANAGER.to_owned()),
            (MIRRORED_SERVICE_NAME.to_owned(), source.labels().get(SERVICE_NAME).cloned().unwrap_or_default()),
        ];
        let annotations = [
            (SOURCE.to_owned(), name.to_owned()),
            (SOURCE_VERSION.to_owned(), source.resource_version().unwrap_or_default()),
            (NETWORK.to_owned(), network.clone()),
        ];
        let mut mirrors = mirrors.into_iter();
        let first = mirrors.next();
        for surplus in mirrors {
            self.delete_mirror(&api, &surplus).await?;
        }
        let Some(mirror) = first else {
            // As there: no mirror of nothing.
            if endpoints.is_empty() {
                return Ok(());
            }
            let mut mirror = EndpointSlice::clone(&source);
            mirror.metadata = kube::api::ObjectMeta {
                generate_name: Some(generate_name(&network, &source)),
                namespace: Some(namespace.into()),
                labels: Some(labels.into_iter().collect()),
                annotations: Some(annotations.into_iter().collect()),
                owner_references: source.metadata.owner_references.clone(),
                ..kube::api::ObjectMeta::default()
            };
            mirror.endpoints = endpoints;
            return match api.create(&PostParams::default(), &mirror).await {
                Ok(created) => {
                    self.mirror_created(&nad_key(namespace, &created.name_any())).await;
                    Ok(())
                }
                // The namespace is on its way out.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(()),
                Err(error) => Err(Error::api(format!("mirror the EndpointSlice {key}"))(error)),
            };
        };
        let kept = annotations.iter().all(|(name, value)| mirror.annotations().get(name) == Some(value))
            && labels.iter().all(|(name, value)| mirror.labels().get(name) == Some(value));
        if kept && mirror.endpoints == endpoints && mirror.ports == source.ports {
            return Ok(());
        }
        let patch = Patch::Merge(json!({
            "metadata": {
                "labels": labels.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                "annotations": annotations.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            },
            "endpoints": endpoints, "ports": source.ports,
        }));
        match api.patch(&mirror.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(Error::api(format!("update the mirror of the EndpointSlice {key}"))),
        }
    }

    /// The endpoints of a slice with their addresses on the network of `nad`.
    fn mirrored(&self, source: &EndpointSlice, nad: &str) -> Result<Vec<Endpoint>, NotYet> {
        let ipv6 = source.address_type == "IPv6";
        let mut endpoints = Vec::new();
        for endpoint in &source.endpoints {
            let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            let Some(pod) = target.and_then(|target| target.name.as_deref()) else { continue };
            let key = nad_key(&source.namespace().unwrap_or_default(), pod);
            let addresses: Vec<std::net::IpAddr> = match self.pods.get(&key) {
                Some(pod) if is_host_network(&pod) => pod_ips(&pod),
                // Gone, and the slice will say so in a moment.
                None => continue,
                Some(_) => {
                    let state = self.state();
                    let known = state.pods.get(&key).ok_or(NotYet)?;
                    // Two pods of a virtual machine have its addresses; one has its guest.
                    if known.guest().is_some() && known.standing != Standing::Active {
                        continue;
                    }
                    let attachment = known.attachments.iter().find(|attachment| attachment.nad == nad);
                    attachment.map(crate::annotation::Attachment::ips).unwrap_or_default()
                }
            };
            if let Some(address) = addresses.into_iter().find(|address| address.is_ipv6() == ipv6) {
                endpoints.push(Endpoint { addresses: vec![address.to_string()], ..endpoint.clone() });
            }
        }
        Ok(endpoints)
    }

    async fn delete_mirror(&self, api: &Api<EndpointSlice>, mirror: &EndpointSlice) -> Result<(), Error> {
        let name = mirror.name_any();
        let preconditions = Some(Preconditions { uid: mirror.uid(), resource_version: None });
        match api.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            result => result.map(drop).map_err(Error::api(format!("delete the mirrored EndpointSlice {name}"))),
        }
    }

    /// Waits until the watch has told of a mirror just made, for a moment: the next look must not make another.
    async fn mirror_created(&self, key: &str) {
        let told = async {
            while self.slices.get(key).is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), told).await;
    }

    /// Mirrors that may have waited for a pod.
    pub(crate) fn mirrors_with_pod_changed(&self, pod: &str) {
        let (namespace, name) = pod.split_once('/').unwrap_or_default();
        for slice in self.slices.in_namespace(namespace) {
            let mut targets = slice.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref());
            if !is_mirror(&slice) && targets.any(|target| target.name.as_deref() == Some(name)) {
                self.queue.add(Key::Mirror(key_of(slice.as_ref())));
            }
        }
    }
}

fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

fn pod_ips(pod: &Pod) -> Vec<std::net::IpAddr> {
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(manager: &str) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-abc", "generateName": "web-", "labels": {MANAGED_BY: manager}, "annotations": {SOURCE: "web-xyz"}},
            "addressType": "IPv4", "endpoints": [],
        }))
        .unwrap()
    }

    #[test]
    fn a_mirror_is_never_mirrored() {
        assert_eq!(source_of(&slice(DEFAULT_MANAGER)).as_deref(), Some("web-abc"));
        assert_eq!(source_of(&slice(MANAGER)).as_deref(), Some("web-xyz"));
        assert_eq!(source_of(&slice("somebody")), None);
    }

    #[test]
    fn names_begin_with_the_network_where_that_makes_a_name() {
        assert_eq!(generate_name("blue_net", &slice(DEFAULT_MANAGER)), "web-");
        assert_eq!(generate_name("tenant", &slice(DEFAULT_MANAGER)), "tenant-web-");
    }
}
