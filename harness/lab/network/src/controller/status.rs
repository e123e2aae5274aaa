//! Conditions and events, in OVN-Kubernetes' words.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use udn_api::names;

use super::Controller;
use crate::error::Error;

/// Who says it.
const COMPONENT: &str = "ovn-kubernetes";

/// A condition as it should be, without times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Wanted {
    pub(crate) fn created(message: String) -> Self {
        Self { kind: names::NETWORK_CREATED, holds: true, reason: "NetworkAttachmentDefinitionCreated", message }
    }

    pub(crate) fn not_created(reason: &'static str, message: String) -> Self {
        Self { kind: names::NETWORK_CREATED, holds: false, reason, message }
    }

    pub(crate) fn allocated() -> Self {
        Self {
            kind: names::NETWORK_ALLOCATION_SUCCEEDED,
            holds: true,
            reason: "NetworkAllocationSucceeded",
            message: "Network allocation succeeded for all synced nodes.".into(),
        }
    }

    pub(crate) fn ips_allocated() -> Self {
        let message = "IP addresses successfully allocated".into();
        Self { kind: names::IPS_ALLOCATED, holds: true, reason: "SuccessfulAllocation", message }
    }

    pub(crate) fn ips_not_allocated(reason: &'static str, message: String) -> Self {
        Self { kind: names::IPS_ALLOCATED, holds: false, reason, message }
    }

    pub(crate) fn not_allocated(node: &str) -> Self {
        Self {
            kind: names::NETWORK_ALLOCATION_SUCCEEDED,
            holds: false,
            reason: "InternalError",
            message: format!(
                "Network allocation failed for at least one node: {node}, check UDN events for more info."
            ),
        }
    }
}

/// `current` with `wanted` in it, or nothing if it says so already. The transition time changes only with the status.
pub(crate) fn merge(current: &[Condition], wanted: &[Wanted], now: Timestamp) -> Option<Vec<Condition>> {
    let mut merged = current.to_vec();
    for wanted in wanted {
        let status = if wanted.holds { "True" } else { "False" };
        let condition = |since: Time| Condition {
            type_: wanted.kind.into(),
            status: status.into(),
            reason: wanted.reason.into(),
            message: wanted.message.clone(),
            last_transition_time: since,
            observed_generation: None,
        };
        match merged.iter_mut().find(|condition| condition.type_ == wanted.kind) {
            Some(old) => {
                let since = if old.status == status { old.last_transition_time.clone() } else { Time(now) };
                *old = condition(since);
            }
            None => merged.push(condition(Time(now))),
        }
    }
    (merged != current).then_some(merged)
}

impl Controller {
    /// Puts conditions into an object's status.
    pub(crate) async fn set_conditions<K>(
        &self,
        api: &Api<K>,
        name: &str,
        current: &[Condition],
        wanted: &[Wanted],
    ) -> Result<(), Error>
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let Some(conditions) = merge(current, wanted, Timestamp::now()) else { return Ok(()) };
        let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
        match api.patch_status(name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::api(format!("write the status of {name}"))(error)),
        }
    }

    /// Records a warning about an object. Failing to do so is logged only.
    pub(crate) async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: &str) {
        self.tell(object, COMPONENT, "Warning", reason, message).await;
    }

    /// Records an event about an object in a component's name. Failing to do so is logged only.
    pub(crate) async fn tell<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        component: &str,
        kind: &str,
        reason: &str,
        message: &str,
    ) {
        let namespace = object.namespace().unwrap_or_else(|| "default".into());
        let now = Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", object.name_any(), now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: object.meta().name.clone(),
                namespace: object.namespace(),
                uid: object.uid(),
                resource_version: object.resource_version(),
                ..ObjectReference::default()
            },
            reason: Some(reason.into()),
            message: Some(message.into()),
            type_: Some(kind.into()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(component.into()), host: None }),
            reporting_component: Some(component.into()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!(%error, reason, message, "an event could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_changes_with_the_status_only() {
        let (early, late) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(2).unwrap());
        let first = merge(&[], &[Wanted::created("a".into())], early).unwrap();
        assert!(merge(&first, &[Wanted::created("a".into())], late).is_none());
        let second = merge(&first, &[Wanted::created("b".into())], late).unwrap();
        assert_eq!(second[0].last_transition_time, Time(early));
        let third = merge(&second, &[Wanted::not_created("SyncError", "c".into())], late).unwrap();
        assert_eq!(third[0].last_transition_time, Time(late));
    }
}
