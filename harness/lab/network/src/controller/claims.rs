//! IPAMClaims: what their status says, and addresses that they hold while no pod has them.

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use udn_api::ipam_claim::OwnerPod;
use udn_api::{IpamClaim, IpamClaimStatus, names};

use super::Controller;
use super::cache::key_of;
use super::denied::Denied;
use super::plan::{self, Claim};
use super::pods::takes_part;
use super::state::{State, claim_owner};
use super::status::{Wanted, merge};
use crate::annotation::{self, Attachment, ClaimRef};
use crate::error::Error;
use crate::naming;

impl Controller {
    /// Notes that a claim is there, or takes back what it held.
    pub(crate) async fn reconcile_claim(&self, key: &str) -> Result<(), Error> {
        let uid = self.claims.get(key).and_then(|claim| claim.uid());
        {
            let mut state = self.state();
            let former = match &uid {
                Some(uid) => state.claims.insert(key.to_owned(), uid.clone()),
                None => state.claims.remove(key),
            };
            if let Some(former) = former.filter(|former| Some(former) != uid.as_ref()) {
                state.release_unused_claim(&former);
            }
        }
        self.wake_waiting_pods();
        Ok(())
    }

    /// The claim that a pod names, as it is now. The state knows it from here on.
    pub(crate) fn claim_of(&self, pod: &Pod) -> Option<Claim> {
        let name = annotation::claim_name(pod.annotations())?;
        let key = naming::nad_key(&pod.namespace().unwrap_or_default(), &name);
        let object = self.claims.get(&key);
        let uid = object.as_ref().and_then(|object| object.uid());
        if let Some(uid) = &uid {
            self.state().claims.insert(key, uid.clone());
        }
        Some(Claim { name, uid, addresses: object.map(|object| addresses(&object)).unwrap_or_default() })
    }

    /// Writes what came of a request into the claim's status. What a claim has is never overwritten.
    pub(crate) async fn tell_claim(
        &self,
        claim: &ClaimRef,
        pod: &str,
        outcome: Result<&[IpNet], &Denied>,
    ) -> Result<(), Error> {
        let Some(object) = self.claims.get(&claim.key).filter(|object| object.uid().as_ref() == Some(&claim.uid))
        else {
            return Ok(());
        };
        let Some(status) = status(&object, pod, outcome, Timestamp::now()) else { return Ok(()) };
        let api: Api<IpamClaim> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({"metadata": {"uid": claim.uid}, "status": status}));
        match api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            result => result.map(drop).map_err(Error::api(format!("write the status of the IPAMClaim {}", claim.key))),
        }
    }

    /// Puts the addresses aside that claims and pods have on a network since a former life of this controller, or of the
    /// network: who comes first now must not get them.
    pub(crate) fn put_known_addresses_aside(&self, state: &mut State, network: &str) {
        let Some(known) = state.networks.get(network) else { return };
        let persistent = known.layout.definition.persistent;
        if persistent {
            for object in self.claims.all() {
                let (Some(uid), held) = (object.uid(), addresses(&object)) else { continue };
                if object.spec.network == network && !held.is_empty() {
                    state.claims.insert(key_of(object.as_ref()), uid.clone());
                    put_aside(state, network, &claim_owner(&uid), &held);
                }
            }
        }
        let nads: Vec<String> =
            state.definitions.iter().filter(|(_, it)| it.name == network).map(|(nad, _)| nad.clone()).collect();
        let nads = if network == naming::DEFAULT_NETWORK { vec![naming::DEFAULT_NETWORK.to_owned()] } else { nads };
        for pod in self.pods.all().iter().filter(|pod| takes_part(pod)) {
            let (namespace, uid) = (pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default());
            for (nad, entry) in annotation::read_pod_networks(pod.annotations()) {
                if !nads.contains(&nad) {
                    continue;
                }
                let claim = annotation::claim_name(pod.annotations()).filter(|_| persistent);
                let claim = claim.and_then(|name| self.claims.get(&naming::nad_key(&namespace, &name))?.uid());
                let port = naming::pod_port(&nad, &namespace, &pod.name_any(), 0);
                let owner = claim.map_or_else(|| plan::owner(&uid, &port), |claim| claim_owner(&claim));
                put_aside(state, network, &owner, &entry.ip_addresses);
            }
        }
    }
}

/// Who asks for their claims to be written.
pub(crate) fn claimed(attachments: &[Attachment]) -> Option<(&ClaimRef, &[IpNet])> {
    attachments.iter().find_map(|it| Some((it.claim.as_ref()?, it.addresses.as_slice())))
}

fn put_aside(state: &mut State, network: &str, owner: &str, addresses: &[IpNet]) {
    if let Some(network) = state.networks.get_mut(network) {
        network.put_aside(owner, &addresses.iter().map(IpNet::addr).collect::<Vec<_>>());
    }
}

fn addresses(claim: &IpamClaim) -> Vec<IpNet> {
    claim.status.iter().flat_map(|status| &status.ips).filter_map(|text| text.parse().ok()).collect()
}

/// What a claim's status should be after a request; nothing where it says so already, or has addresses: OVN-Kubernetes
/// leaves the status of such a claim alone, its owner included.
fn status(claim: &IpamClaim, pod: &str, outcome: Result<&[IpNet], &Denied>, now: Timestamp) -> Option<IpamClaimStatus> {
    let current = claim.status.clone().unwrap_or_default();
    if !current.ips.is_empty() {
        return None;
    }
    let (ips, condition) = match outcome {
        Ok(addresses) => (addresses.iter().map(ToString::to_string).collect(), Wanted::ips_allocated()),
        Err(denied) => (Vec::new(), Wanted::ips_not_allocated(denied.cause.reason(), denied.message.clone())),
    };
    let mut conditions = merge(&current.conditions, &[condition], now).unwrap_or_else(|| current.conditions.clone());
    for condition in conditions.iter_mut().filter(|it| it.type_ == names::IPS_ALLOCATED) {
        condition.observed_generation = claim.metadata.generation;
    }
    let wanted = IpamClaimStatus { ips, owner_pod: Some(OwnerPod { name: pod.to_owned() }), conditions };
    (claim.status.as_ref() != Some(&wanted)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::denied::Cause;

    fn claim(status: serde_json::Value) -> IpamClaim {
        serde_json::from_value(json!({
            "apiVersion": "k8s.cni.cncf.io/v1alpha1", "kind": "IPAMClaim",
            "metadata": {"name": "db.default", "namespace": "red", "generation": 1},
            "spec": {"network": "cluster_udn_happy", "interface": "ovn-udn1"}, "status": status,
        }))
        .unwrap()
    }

    fn told(claim: &IpamClaim, outcome: Result<&[IpNet], &Denied>) -> Option<IpamClaimStatus> {
        status(claim, "virt-launcher-db-abcde", outcome, Timestamp::from_second(1).unwrap())
    }

    #[test]
    fn addresses_are_written_with_their_length() {
        let given: Vec<IpNet> = vec!["192.168.0.5/16".parse().unwrap(), "fd10::5/64".parse().unwrap()];
        let written = told(&claim(json!({"ips": []})), Ok(&given)).unwrap();
        assert_eq!(written.ips, ["192.168.0.5/16", "fd10::5/64"]);
        assert_eq!(written.owner_pod.unwrap().name, "virt-launcher-db-abcde");
        let condition = &written.conditions[0];
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("IPsAllocated", "True"));
        assert_eq!(condition.reason, "SuccessfulAllocation");
        assert_eq!(condition.message, "IP addresses successfully allocated");
        assert_eq!(condition.observed_generation, Some(1));
    }

    #[test]
    fn a_claim_with_addresses_is_left_alone() {
        let has = claim(json!({"ips": ["192.168.0.5/16"], "ownerPod": {"name": "first"}}));
        assert_eq!(told(&has, Ok(&["192.168.0.6/16".parse().unwrap()])), None);
        assert_eq!(told(&has, Err(&Denied::internal("no"))), None);
    }

    #[test]
    fn refusals_are_conditions_and_written_once() {
        for (cause, reason) in [
            (Cause::Exhausted, "SubnetExhausted"),
            (Cause::AddressConflict, "IPAddressConflict"),
            (Cause::MacConflict, "MACAddressConflict"),
            (Cause::Internal, "InternalError"),
        ] {
            let denied = Denied { cause, message: "the allocator's words".into() };
            let first = told(&claim(json!(null)), Err(&denied)).unwrap();
            assert!(first.ips.is_empty());
            let condition = &first.conditions[0];
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", reason));
            assert_eq!(condition.message, "the allocator's words");
            assert_eq!(told(&claim(serde_json::to_value(&first).unwrap()), Err(&denied)), None);
        }
    }
}
