//! What EndpointSlices must say: of every service of a user defined network its backends' addresses there.

use crate::cell::Claim;
use crate::world::{PodRef, Service, ServiceRef, World};

/// What is promised of every service's mirrored EndpointSlices.
#[must_use]
pub fn slices(world: &World) -> Vec<(ServiceRef, Claim)> {
    world.services.iter().flat_map(|service| of(world, service)).collect()
}

fn of(world: &World, service: &Service) -> Vec<(ServiceRef, Claim)> {
    let told = |claim| (service.service.clone(), claim);
    // The default network's addresses are in the slices that Kubernetes makes; there is nothing to mirror, nor is there
    // where secondary networks are all that a namespace has.
    let Some(network) = world.primary_of(&service.service.namespace) else { return vec![told(Claim::NotMirrored)] };
    let selects = world.pods.iter().any(|pod| service.selects(pod));
    // Nobody to mirror: OVN-Kubernetes makes none of nothing, and leaves an empty one be. No rule speaks of it.
    if !selects || service.selector.is_empty() {
        return Vec::new();
    }
    let families = service.families.iter().filter(|family| network.has_family(**family));
    families.map(|family| told(Claim::Mirrored { family: *family, backends: backends(world, service) })).collect()
}

/// All that stand behind one of its ports.
fn backends(world: &World, service: &Service) -> Vec<PodRef> {
    let stands = |pod: &PodRef| {
        service.ports.is_empty()
            || service.ports.iter().any(|port| service.backends(world, port).iter().any(|behind| behind.pod == *pod))
    };
    let selected = world.pods.iter().filter(|pod| service.selects(pod) && pod.ready);
    selected.map(|pod| pod.pod.clone()).filter(stands).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::words::Family;

    #[test]
    fn what_is_mirrored_and_what_is_not() {
        let mut manifests = vec![
            json!({ "kind": "Namespace", "metadata": { "name": "shop", "labels": { "k8s.ovn.org/primary-user-defined-network": "" } } }),
            json!({ "kind": "Namespace", "metadata": { "name": "plain" } }),
            json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": "shop" },
                "spec": { "topology": "Layer2", "layer2": { "role": "Primary", "subnets": ["10.0.0.0/16"] } } }),
        ];
        for (name, ready) in [("a", "True"), ("b", "False")] {
            for namespace in ["shop", "plain"] {
                manifests.push(json!({ "kind": "Pod",
                    "metadata": { "name": name, "namespace": namespace, "labels": { "app": "x", "udn-conformance.io/node": "0" } },
                    "spec": { "containers": [{ "name": "probe" }] },
                    "status": { "conditions": [{ "type": "udn-conformance.io/ready", "status": ready }] } }));
            }
        }
        for (namespace, app) in [("shop", "x"), ("plain", "x"), ("shop", "nobody")] {
            manifests.push(json!({ "kind": "Service", "metadata": { "name": app, "namespace": namespace },
                "spec": { "selector": { "app": app }, "ports": [{ "port": 80 }], "ipFamilyPolicy": "PreferDualStack" } }));
        }
        let world = World::from_manifests(&manifests).unwrap();
        let expected = [
            (
                ServiceRef::new("shop", "x"),
                Claim::Mirrored { family: Family::V4, backends: vec![PodRef::new("shop", "a")] },
            ),
            (ServiceRef::new("plain", "x"), Claim::NotMirrored),
        ];
        assert_eq!(slices(&world), expected);
    }
}
