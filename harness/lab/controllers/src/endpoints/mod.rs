//! Endpoint slices (and the old `Endpoints` objects) of services with selectors, from the pods' addresses on the
//! cluster's default network.

mod desired;
pub(crate) mod kubernetes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::{DeleteParams, ObjectMeta};

use crate::Error;
use crate::cache::Key;
use crate::objects::Objects;
use crate::owners::{managed_by, wake_self};
use crate::pods;
use crate::queue::{Queue, drive};
use desired::{Ports, addresses, families, slice_ports, slices, subsets};

/// Label with the name of a slice's service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const LEGACY_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const LEGACY_MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints per slice, as upstream.
const PER_SLICE: usize = 100;

#[derive(Clone)]
pub(crate) struct EndpointsController {
    pub(crate) services: Objects<Service>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) slices: Objects<EndpointSlice>,
    pub(crate) legacy: Objects<Endpoints>,
}

impl EndpointsController {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.services, &queue);
        let (services, wake) = (self.services.clone(), queue.clone());
        self.pods.cache.on_change(move |change| {
            let pod = change.object();
            if let Some(before) = change.before().filter(|before| !Arc::ptr_eq(before, pod))
                && facts(before) == facts(pod)
            {
                return;
            }
            for service in services.cache.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                if selects(&service, pod) || change.before().is_some_and(|before| selects(&service, before)) {
                    wake.add(Key::of(service.as_ref()));
                }
            }
        });
        let wake = queue.clone();
        self.slices.cache.on_change(move |change| {
            let slice = change.object();
            if let Some(service) = slice.labels().get(SERVICE_NAME).filter(|_| is_ours(slice)) {
                wake.add(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service));
            }
        });
        self.services.cache.synced().await;
        self.pods.cache.synced().await;
        self.slices.cache.synced().await;
        self.legacy.cache.synced().await;
        drive("endpoints", queue, 8, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.services.get(&key) else {
            // Its slices go with their owner.
            if let Some(legacy) = self.legacy.get(&key).filter(|legacy| is_ours_legacy(legacy)) {
                self.legacy.delete(legacy.as_ref(), DeleteParams::background()).await?;
            }
            return Ok(None);
        };
        if !has_selector(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods = self.pods.cache.in_namespace(&key.namespace);
        let pods: Vec<Arc<Pod>> = pods.into_iter().filter(|pod| selects(&service, pod)).collect();
        self.write_slices(&key, &service, &pods).await?;
        self.write_legacy(&key, &service, &pods).await?;
        Ok(None)
    }

    async fn write_slices(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let mut existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .cache
            .in_namespace(&key.namespace)
            .into_iter()
            .filter(|slice| is_ours(slice) && slice.labels().get(SERVICE_NAME) == Some(&key.name))
            .filter(|slice| slice.metadata.deletion_timestamp.is_none())
            .collect();
        for family in families(service) {
            for (ports, endpoints) in slices(service, pods, family) {
                // An empty group still needs its slice.
                let chunks: Vec<&[Endpoint]> =
                    if endpoints.is_empty() { vec![&[]] } else { endpoints.chunks(PER_SLICE).collect() };
                for chunk in chunks {
                    let wanted = slice(service, family.as_str(), &ports, chunk);
                    let same = |old: &Arc<EndpointSlice>| old.address_type == wanted.address_type;
                    let position = existing
                        .iter()
                        .position(|old| same(old) && old.ports == wanted.ports)
                        .or_else(|| existing.iter().position(same));
                    match position.map(|index| existing.swap_remove(index)) {
                        Some(old) => {
                            let mut changed = EndpointSlice::clone(&old);
                            changed.endpoints = wanted.endpoints;
                            changed.ports = wanted.ports;
                            changed.metadata.labels = wanted.metadata.labels;
                            self.slices.update(old.as_ref(), &changed).await?;
                        }
                        None => drop(self.slices.create(&key.namespace, &wanted).await?),
                    }
                }
            }
        }
        for surplus in existing {
            self.slices.delete(surplus.as_ref(), DeleteParams::background()).await?;
        }
        Ok(())
    }

    async fn write_legacy(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let subsets = subsets(service, pods);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.insert(LEGACY_MANAGED_BY.to_owned(), LEGACY_MANAGER.to_owned());
        if is_headless(service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        let mut wanted = Endpoints {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            subsets: (!subsets.is_empty()).then_some(subsets),
        };
        match self.legacy.get(key) {
            Some(old) => {
                let labels = wanted.metadata.labels.take();
                wanted.metadata = ObjectMeta { labels, ..old.metadata.clone() };
                self.legacy.update(old.as_ref(), &wanted).await?;
            }
            None => drop(self.legacy.create(&key.namespace, &wanted).await?),
        }
        Ok(())
    }
}

fn slice(service: &Service, family: &str, ports: &Ports, endpoints: &[Endpoint]) -> EndpointSlice {
    let name = service.name_any();
    let mut labels: BTreeMap<String, String> = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let ports = slice_ports(ports);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(pods::generate_name(&name)),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![managed_by(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: endpoints.to_vec(),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn is_ours_legacy(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(LEGACY_MANAGED_BY).is_some_and(|manager| manager == LEGACY_MANAGER)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn has_selector(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty())
        && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    has_selector(service) && selector.into_iter().flatten().all(|(name, value)| pod.labels().get(name) == Some(value))
}

/// What of a pod matters to endpoints.
fn facts(pod: &Pod) -> impl PartialEq + use<> {
    let spec = pod.spec.as_ref();
    (
        pod.labels().clone(),
        addresses(pod),
        [pods::is_ready(pod), pods::is_terminating(pod), pods::is_finished(pod)],
        spec.map(|spec| (spec.node_name.clone(), spec.hostname.clone(), spec.subdomain.clone())),
    )
}
