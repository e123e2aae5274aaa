//! Addresses for services of type LoadBalancer, from a pool. Speaks as MetalLB's controller does; which node announces an
//! address is the network's business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};

use crate::Error;
use crate::cache::{Change, Key};
use crate::events::{Recorder, Severity};
use crate::objects::Objects;
use crate::owners::wake_self;
use crate::queue::{Queue, drive};

pub(crate) mod pool;

use pool::{Pool, current};

/// Who says it.
pub(crate) const COMPONENT: &str = "metallb-controller";

#[derive(Clone)]
pub(crate) struct LoadBalancers {
    pub(crate) services: Objects<Service>,
    pub(crate) pool: Pool,
    pub(crate) events: Recorder,
    /// Why services have no address: told once, and tried again when an address comes free.
    pub(crate) refused: Arc<Mutex<BTreeMap<Key, String>>>,
}

impl LoadBalancers {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.services, &queue);
        let (refused, wake) = (self.refused.clone(), queue.clone());
        self.services.cache.on_change(move |change| {
            let before = change.before().map(|before| current(before)).unwrap_or_default();
            let gone = matches!(change, Change::Gone(_));
            if !before.is_empty() && (gone || current(change.object()) != before) {
                let refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.keys().for_each(|key| wake.add(key.clone()));
            }
        });
        self.services.cache.synced().await;
        // One at a time: no address is given twice.
        drive("load balancers", queue, 1, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.services.get(&key) else {
            self.refusals().remove(&key);
            return Ok(None);
        };
        let spec = service.spec.as_ref();
        let is_balancer = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
        // A class is somebody else's.
        let ours = spec.is_none_or(|spec| spec.load_balancer_class.is_none());
        if !is_balancer || !ours || service.metadata.deletion_timestamp.is_some() {
            self.refusals().remove(&key);
            // A type that changed leaves no address behind.
            if !is_balancer && !current(&service).is_empty() {
                self.write(&service, &[]).await?;
            }
            return Ok(None);
        }
        match self.pool.assign(&service, &self.taken(&key)) {
            Ok(addresses) => {
                self.refusals().remove(&key);
                if addresses != current(&service) {
                    self.write(&service, &addresses).await?;
                    let list: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
                    let message = format!("Assigned IP [{}]", list.join(" "));
                    self.events.record(service.as_ref(), Severity::Normal, "IPAllocated", &message);
                }
            }
            Err(reason) => {
                let message = format!("Failed to allocate IP for \"{key}\": {reason}");
                if self.refusals().insert(key, reason.clone()).as_ref() != Some(&reason) {
                    self.events.record(service.as_ref(), Severity::Warning, "AllocationFailed", &message);
                }
                if !current(&service).is_empty() {
                    self.write(&service, &[]).await?;
                }
            }
        }
        Ok(None)
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of other services.
    fn taken(&self, key: &Key) -> BTreeMap<IpAddr, Key> {
        let services = self.services.cache.all();
        let balancers = services.iter().filter(|service| {
            service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
                && Key::of(service.as_ref()) != *key
        });
        balancers
            .flat_map(|service| current(service).into_iter().map(|address| (address, Key::of(service.as_ref()))))
            .collect()
    }

    async fn write(&self, service: &Service, addresses: &[IpAddr]) -> Result<(), Error> {
        let ingress: Vec<LoadBalancerIngress> = addresses
            .iter()
            .map(|address| LoadBalancerIngress {
                ip: Some(address.to_string()),
                ip_mode: Some("VIP".to_owned()),
                ..LoadBalancerIngress::default()
            })
            .collect();
        let status = ServiceStatus {
            load_balancer: Some(LoadBalancerStatus { ingress: (!ingress.is_empty()).then_some(ingress) }),
            conditions: service.status.as_ref().and_then(|status| status.conditions.clone()),
        };
        self.services.update_status(service, service.status.as_ref(), &status).await.map(drop)
    }
}
