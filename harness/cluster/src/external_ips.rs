//! Addresses that services of a run claim as their `externalIPs`. Fixtures name addresses for documentation; each run
//! takes others for them, out of what the cluster's underlay routes to nodes, so that two runs at once claim none twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use udn_model::words::Family;

use crate::error::Error;
use crate::names::EXTERNAL_IPS_ANNOTATION;
use crate::objects::Objects;

/// How many addresses are tried before it is given up.
const TRIES: u128 = 4096;

/// The ranges that whoever placed the external vantage point allows; what cannot be read allows nothing.
pub(crate) fn ranges(external: Option<&Pod>) -> Vec<IpNet> {
    let text = external.and_then(|pod| pod.annotations().get(EXTERNAL_IPS_ANNOTATION));
    let parts = text.into_iter().flat_map(|text| text.split(','));
    parts.map(|part| part.trim().parse().ok()).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Whether there is a range for each of these families.
pub(crate) fn cover(ranges: &[IpNet], families: &[Family]) -> bool {
    families.iter().all(|family| ranges.iter().any(|range| Family::of_net(range) == *family))
}

/// Which address each one of the fixtures stands for in this world.
///
/// # Errors
/// The API server cannot be asked which are taken.
pub(crate) async fn choose(
    objects: &Objects,
    ranges: &[IpNet],
    seed: &str,
    manifests: &[Value],
) -> Result<BTreeMap<IpAddr, IpAddr>, Error> {
    let placeholders: BTreeSet<IpAddr> = manifests.iter().flat_map(claimed).collect();
    if placeholders.is_empty() || ranges.is_empty() {
        return Ok(BTreeMap::new());
    }
    let services = objects.list("v1", "Service", None, None).await?;
    let services = services.into_iter().filter_map(|service| serde_json::to_value(service).ok());
    let mut taken: BTreeSet<IpAddr> = services.flat_map(|service| claimed(&service)).collect();
    let mut chosen = BTreeMap::new();
    for placeholder in placeholders {
        if let Some(address) = pick(ranges, &format!("{seed}/{placeholder}"), placeholder, &taken) {
            taken.insert(address);
            chosen.insert(placeholder, address);
        }
    }
    Ok(chosen)
}

/// Puts the chosen addresses in the place of the fixtures'; what stands for none is left out.
pub(crate) fn replace(service: &mut Value, chosen: &BTreeMap<IpAddr, IpAddr>) {
    if let Some(addresses) = service.pointer_mut("/spec/externalIPs").and_then(Value::as_array_mut) {
        let real = |address: &Value| chosen.get(&address.as_str()?.parse().ok()?).map(ToString::to_string);
        *addresses = addresses.iter().filter_map(real).map(Value::from).collect();
    }
}

/// The external addresses of a service, those that a load balancer gave it included.
fn claimed(service: &Value) -> Vec<IpAddr> {
    if service["kind"].as_str().is_some_and(|kind| kind != "Service") {
        return Vec::new();
    }
    let read = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let external = read(&service["spec"]["externalIPs"]);
    let ingress = read(&service["status"]["loadBalancer"]["ingress"]).into_iter().map(|entry| entry["ip"].clone());
    external.into_iter().chain(ingress).filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// An address of the family out of the ranges: the seed says where the search begins. Pure.
fn pick(ranges: &[IpNet], seed: &str, like: IpAddr, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let range = ranges.iter().find(|range| Family::of_net(range) == Family::of(like))?;
    let width = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1_u128.checked_shl(width).unwrap_or(u128::MAX);
    // Neither the first nor the last: they mean the network and everybody in it.
    let usable = size.checked_sub(2).filter(|usable| *usable > 0)?;
    let begin = scatter(seed) % usable;
    (0..usable.min(TRIES))
        .map(|step| 1 + (begin + step) % usable)
        .map(|offset| nth(range, offset))
        .find(|it| !taken.contains(it))
}

fn nth(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => {
            let offset = u32::try_from(offset).unwrap_or_default();
            Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset)).into()
        }
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(offset)).into(),
    }
}

/// FNV-1a: the same everywhere and always, which the standard library's hashes do not promise.
fn scatter(seed: &str) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    seed.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lab() -> Vec<IpNet> {
        vec!["172.18.128.0/18".parse().unwrap(), "fc00:f853:ccd:e793:1::/80".parse().unwrap()]
    }

    #[test]
    fn runs_take_different_addresses_of_the_range() {
        for like in ["192.0.2.1", "2001:db8::1"] {
            let like: IpAddr = like.parse().unwrap();
            let pick = |run: usize| pick(&lab(), &format!("run{run}/a/{like}"), like, &BTreeSet::new()).unwrap();
            let found: BTreeSet<IpAddr> = (0..50).map(pick).collect();
            assert!(found.len() >= 48, "{found:?}");
            assert!(found.iter().all(|address| lab().iter().any(|range| range.contains(address))));
        }
    }

    #[test]
    fn what_is_taken_is_passed_over() {
        let range: Vec<IpNet> = vec!["10.0.0.0/29".parse().unwrap()];
        let mut taken = BTreeSet::new();
        while let Some(address) = pick(&range, "seed", "192.0.2.1".parse().unwrap(), &taken) {
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 6);
        assert!(pick(&range, "seed", "2001:db8::1".parse().unwrap(), &taken).is_none());
    }

    #[test]
    fn fixtures_addresses_never_reach_a_cluster() {
        let mut service = json!({ "kind": "Service", "spec": { "externalIPs": ["192.0.2.1", "2001:db8::1"] } });
        let chosen = BTreeMap::from([("192.0.2.1".parse().unwrap(), "172.18.130.7".parse().unwrap())]);
        replace(&mut service, &chosen);
        assert_eq!(service["spec"]["externalIPs"], json!(["172.18.130.7"]));
    }

    #[test]
    fn ranges_are_read_and_have_to_cover_the_families() {
        let pod = |text: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": { "annotations": { EXTERNAL_IPS_ANNOTATION: text } } })).unwrap()
        };
        let both = ranges(Some(&pod("172.18.128.0/18, fc00:f853:ccd:e793:1::/80")));
        assert_eq!(both, lab());
        assert!(cover(&both, &Family::ALL) && !cover(&both[..1], &Family::ALL));
        assert!(ranges(Some(&pod("172.18.128.0/18,x"))).is_empty() && ranges(None).is_empty());
    }
}
