//! Mirrored EndpointSlices: what they must say, and their deletion by somebody who does not know what they are for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube::ResourceExt;
use serde_json::Value;
use udn_model::cell::{Claim, ObjectRef};
use udn_model::fact::PodView;
use udn_model::words::Family;
use udn_model::world::{PodRef, ServiceRef};
use udn_runner::cluster::Found;

use crate::addresses::{POD_NETWORKS, annotation};
use crate::error::Error;
use crate::objects::Real;
use crate::world::KubeWorld;

/// `apiVersion` of EndpointSlices.
const VERSION: &str = "discovery.k8s.io/v1";
/// The label by which OVN-Kubernetes' mirrored slices name their service.
const MIRRORED_SERVICE: &str = "k8s.ovn.org/service-name";

/// Whether a claim about a service's mirrored slices holds; `None` where the claim is another.
///
/// # Errors
/// The API server cannot be asked.
pub(crate) async fn claim(world: &KubeWorld, service: &ObjectRef, claim: &Claim) -> Result<Option<Found>, Error> {
    let wanted = match claim {
        Claim::Mirrored { family, backends } => Some((*family, backends)),
        Claim::NotMirrored => None,
        _ => return Ok(None),
    };
    let namespace = service.namespace.as_deref().unwrap_or_default();
    let slices = mirrored(world, &ServiceRef::new(namespace, &service.name)).await?;
    let result = match wanted {
        Some((family, backends)) => compare(family, &expected(world, family, backends), &slices),
        None if slices.is_empty() => Ok("no mirrored EndpointSlice".into()),
        None => Err(format!("there are mirrored EndpointSlices: {}", tell(&slices))),
    };
    let holds = result.is_ok();
    Ok(Some(Found { holds, found: result.unwrap_or_else(|found| found) }))
}

/// Deletes a service's mirrored slices.
///
/// # Errors
/// There is none to delete, or the API server does not do it.
pub(crate) async fn delete(world: &KubeWorld, service: &ServiceRef) -> Result<(), Error> {
    let slices = mirrored(world, service).await?;
    if slices.is_empty() {
        let problem = "it has no mirrored EndpointSlice that could be deleted".into();
        return Err(Error::Manifest { object: format!("Service {service}"), problem });
    }
    for slice in slices {
        let object = Real {
            api_version: VERSION.into(),
            kind: "EndpointSlice".into(),
            namespace: Some(world.naming.real(&service.namespace)),
            name: slice["metadata"]["name"].as_str().unwrap_or_default().into(),
        };
        world.objects.delete(&object).await?;
    }
    Ok(())
}

async fn mirrored(world: &KubeWorld, service: &ServiceRef) -> Result<Vec<Value>, Error> {
    let namespace = world.naming.real(&service.namespace);
    let selector = format!("{MIRRORED_SERVICE}={}", service.name);
    let mut slices = world.objects.list(VERSION, "EndpointSlice", Some(&namespace), Some(&selector)).await?;
    slices.sort_by_key(ResourceExt::name_any);
    Ok(slices.into_iter().filter_map(|slice| serde_json::to_value(slice).ok()).collect())
}

/// The backends' addresses on their primary network, as their annotations say; of a pod that has none its name.
fn expected(world: &KubeWorld, family: Family, backends: &[PodRef]) -> BTreeSet<String> {
    let of = |pod: &PodRef| {
        let object = world.pods.get(&world.key_of(pod));
        let address = object.as_deref().and_then(|object| primary(object, family));
        address.map_or_else(|| format!("{pod}'s, which has none"), |address| address.to_string())
    };
    backends.iter().map(of).collect()
}

fn primary(pod: &Value, family: Family) -> Option<IpAddr> {
    let networks = PodView::read_pod_networks(annotation(pod, POD_NETWORKS)?).ok()?;
    let (_, primary) = networks.into_iter().find(|(_, entry)| entry.role.as_deref() == Some("primary"))?;
    primary.ips.iter().map(ipnet::IpNet::addr).find(|address| Family::of(*address) == family)
}

/// Whether the ready endpoints of a family are exactly these. Pure.
fn compare(family: Family, expected: &BTreeSet<String>, slices: &[Value]) -> Result<String, String> {
    let kind = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let of_family: Vec<&Value> = slices.iter().filter(|slice| slice["addressType"] == kind).collect();
    if of_family.is_empty() {
        return Err(format!("no mirrored EndpointSlice of {kind}"));
    }
    let endpoints = of_family.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    let found: BTreeSet<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    let told = |set: &BTreeSet<String>| {
        if set.is_empty() { "none".to_owned() } else { set.iter().cloned().collect::<Vec<_>>().join(", ") }
    };
    if found == *expected {
        Ok(format!("ready endpoints {}", told(&found)))
    } else {
        Err(format!("ready endpoints {}, not {}", told(&found), told(expected)))
    }
}

fn tell(slices: &[Value]) -> String {
    slices.iter().filter_map(|slice| slice["metadata"]["name"].as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn slice(kind: &str, endpoints: &[(&str, bool)]) -> Value {
        let endpoint =
            |(address, ready): &(&str, bool)| json!({ "addresses": [address], "conditions": { "ready": ready } });
        json!({ "addressType": kind, "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() })
    }

    #[rstest]
    #[case::exact(&[slice("IPv4", &[("10.0.0.4", true), ("10.0.0.5", true)])], true)]
    #[case::in_two(&[slice("IPv4", &[("10.0.0.4", true)]), slice("IPv4", &[("10.0.0.5", true)])], true)]
    #[case::one_not_ready(&[slice("IPv4", &[("10.0.0.4", true), ("10.0.0.5", false)])], false)]
    #[case::another_not_ready(&[slice("IPv4", &[("10.0.0.4", true), ("10.0.0.5", true), ("10.0.0.6", false)])], true)]
    #[case::too_many(&[slice("IPv4", &[("10.0.0.4", true), ("10.0.0.5", true), ("10.0.0.6", true)])], false)]
    #[case::of_the_default_network(&[slice("IPv4", &[("10.244.0.4", true), ("10.244.0.5", true)])], false)]
    #[case::another_family(&[slice("IPv6", &[("fd00::4", true)])], false)]
    #[case::none(&[], false)]
    fn addresses_have_to_be_exactly_the_backends(#[case] slices: &[Value], #[case] holds: bool) {
        let expected = ["10.0.0.4", "10.0.0.5"].map(str::to_owned).into();
        assert_eq!(compare(Family::V4, &expected, slices).is_ok(), holds);
    }

    #[test]
    fn primary_addresses_are_read_by_role() {
        let networks = json!({ "default": { "ip_addresses": ["10.244.0.6/24"], "role": "infrastructure-locked" },
            "blue/net": { "ip_addresses": ["10.0.0.5/16", "fd00::5/64"], "role": "primary" } });
        let pod = json!({ "metadata": { "annotations": { POD_NETWORKS: networks.to_string() } } });
        assert_eq!(primary(&pod, Family::V6), Some("fd00::5".parse().unwrap()));
        assert_eq!(primary(&json!({}), Family::V4), None);
    }
}
