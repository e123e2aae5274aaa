//! The rules in the schemas accept and refuse what OVN-Kubernetes' own validation tests do (a sample of each kind).

#![allow(clippy::unwrap_used)] // helpers of tests

use kube::core::cel::Validator;
use serde_json::{Value, json};

fn schema(kind: &str) -> Value {
    let crd = udn_api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
}

fn refusals(kind: &str, spec: &Value, old: Option<&Value>) -> String {
    let wrap = |spec: &Value| json!({"metadata": {"name": "tested"}, "spec": spec});
    match Validator::new().validate(&schema(kind), &wrap(spec), old.map(wrap).as_ref()) {
        Ok(()) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

fn layer2(config: Value) -> Value {
    json!({"topology": "Layer2", "layer2": config})
}

#[test]
fn accepts_what_upstream_accepts() {
    let cases = [
        layer2(json!({"role": "Primary", "subnets": ["10.10.0.0/16", "2014:100:200::/60"]})),
        layer2(json!({"role": "Primary", "subnets": ["172.16.0.0/16"], "defaultGatewayIPs": ["172.16.0.3"],
            "reservedSubnets": ["172.16.1.0/24"], "infrastructureSubnets": ["172.16.0.0/30"]})),
        layer2(json!({"role": "Secondary", "ipam": {"mode": "Disabled"}})),
        layer2(json!({"role": "Primary", "subnets": ["10.10.0.0/16"], "ipam": {"lifecycle": "Persistent"}})),
        json!({"topology": "Layer3", "layer3": {"role": "Primary", "subnets": [
            {"cidr": "10.0.0.0/16", "hostSubnet": 24}, {"cidr": "10.1.0.0/16", "hostSubnet": 24}]}}),
    ];
    for spec in cases {
        assert_eq!(refusals("UserDefinedNetwork", &spec, None), "", "{spec}");
    }
}

#[test]
fn refuses_with_upstreams_words() {
    let gateway = json!({"role": "Primary", "subnets": ["10.10.0.0/16"], "defaultGatewayIPs": ["10.11.0.1"]});
    let unmasked = json!({"role": "Primary", "subnets": ["10.10.0.0/16"], "reservedSubnets": ["10.10.1.5/24"]});
    let cases = [
        (
            json!({"topology": "Layer2", "layer3": {"role": "Primary", "subnets": [{"cidr": "10.0.0.0/16"}]}}),
            "spec.layer2 is required when topology is Layer2 and forbidden otherwise",
        ),
        (layer2(json!({"role": "Primary"})), "Subnets is required with ipam.mode is Enabled or unset"),
        (
            layer2(json!({"role": "Primary", "ipam": {"mode": "Disabled"}})),
            "Disabled ipam.mode is only supported for Secondary network",
        ),
        (
            layer2(json!({"role": "Secondary", "subnets": ["10.10.0.0/16"], "joinSubnets": ["100.70.0.0/16"]})),
            "JoinSubnets is only supported for Primary network",
        ),
        (
            layer2(json!({"role": "Primary", "subnets": ["10.10.0.0/16", "10.11.0.0/16"]})),
            "When 2 CIDRs are set, they must be from different IP families",
        ),
        (layer2(json!({"role": "Primary", "subnets": ["300.10.0.0/16"]})), "CIDR is invalid"),
        (
            layer2(json!({"role": "Primary", "mtu": 1000, "subnets": ["2014:100:200::/60"]})),
            "MTU should be greater than or equal to 1280",
        ),
        (layer2(gateway), "defaultGatewayIPs must belong to one of the subnets"),
        (layer2(unmasked), "reservedSubnets must be a masked network address (no host bits set)"),
        (
            layer2(
                json!({"role": "Primary", "subnets": ["10.0.0.0/16"], "ipam": {"mode": "Disabled", "lifecycle": "Persistent"}}),
            ),
            "lifecycle Persistent is only supported when ipam.mode is Enabled",
        ),
        (
            json!({"topology": "Layer3", "layer3": {"role": "Primary", "subnets": [{"cidr": "10.0.0.0/16", "hostSubnet": 16}]}}),
            "HostSubnet must be smaller than CIDR subnet",
        ),
        (
            json!({"topology": "Layer3", "layer3": {"role": "Primary", "subnets": [{"cidr": "10.0.0.0/8"}, {"cidr": "10.1.0.0/16"}]}}),
            "Subnets must not overlap or contain each other",
        ),
    ];
    for (spec, words) in cases {
        let said = refusals("UserDefinedNetwork", &spec, None);
        assert!(said.contains(words), "{spec}\nsaid: {said}\nwanted: {words}");
    }
}

#[test]
fn what_is_immutable_stays() {
    let old = layer2(json!({"role": "Primary", "subnets": ["10.10.0.0/16"]}));
    let new = layer2(json!({"role": "Primary", "subnets": ["10.20.0.0/16"]}));
    assert!(refusals("UserDefinedNetwork", &new, Some(&old)).contains("Layer2 is immutable"));
    assert_eq!(refusals("UserDefinedNetwork", &old, Some(&old)), "");
}

#[test]
fn cluster_networks_too() {
    let localnet =
        |config: Value| json!({"namespaceSelector": {}, "network": {"topology": "Localnet", "localnet": config}});
    let bad = localnet(json!({"role": "Secondary", "physicalNetworkName": "a:b", "subnets": ["10.0.0.0/24"]}));
    assert!(refusals("ClusterUserDefinedNetwork", &bad, None).contains("physicalNetworkName cannot contain"));
    let good = localnet(json!({"role": "Secondary", "physicalNetworkName": "physnet", "subnets": ["10.0.0.0/24"]}));
    assert_eq!(refusals("ClusterUserDefinedNetwork", &good, None), "");
}

#[test]
fn ranges_of_tunnel_endpoints() {
    let spec = |cidrs: &[&str], mode: &str| json!({"cidrs": cidrs, "mode": mode});
    let said = |new: &Value, old: Option<&Value>| refusals("VTEP", new, old);
    let two = spec(&["198.18.0.0/24", "2001:db8::/64"], "Managed");
    assert_eq!(said(&two, None), "");
    assert!(said(&spec(&["198.18.0.0/16", "198.18.9.0/24"], "Managed"), None).contains("CIDRs must not overlap"));
    assert!(said(&spec(&["198.18.0.9/24"], "Managed"), None).contains("CIDR must be a valid network address"));
    let wider = spec(&["198.18.0.0/20", "2001:db8::/64", "198.19.0.0/24"], "Managed");
    assert_eq!(said(&wider, Some(&two)), "");
    let narrower = spec(&["198.18.0.0/28", "2001:db8::/64"], "Managed");
    assert!(said(&narrower, Some(&two)).contains("must remain at the same position"));
    assert_eq!(said(&spec(&["198.18.0.0/28"], "Unmanaged"), Some(&two)), "");
    // The last position that there can be counts, too.
    let full: Vec<String> = (0..20).map(|number| format!("198.18.{number}.0/24")).collect();
    let mut moved = full.clone();
    moved[19] = "198.19.0.0/24".into();
    let whole = |list: &[String]| json!({"cidrs": list, "mode": "Managed"});
    assert!(said(&whole(&moved), Some(&whole(&full))).contains("must remain at the same position"));
    // Fewer than there were: that alone is said, not an index that is not there.
    let fewer = said(&spec(&["198.18.0.0/24"], "Managed"), Some(&two));
    assert!(fewer.contains("CIDRs cannot be removed") && !fewer.contains("position"), "{fewer}");
}

#[test]
fn joints_of_networks() {
    let spec = |kind: &str, field: &str, subnets: Value| {
        json!({"networkSelectors": [{"networkSelectionType": kind, field: {"networkSelector": {}, "namespaceSelector": {}}}],
            "connectSubnets": subnets, "connectivity": ["PodNetwork"]})
    };
    let of_networks = |subnets: Value| spec("ClusterUserDefinedNetworks", "clusterUserDefinedNetworkSelector", subnets);
    let one = || json!([{"cidr": "10.0.0.0/16", "networkPrefix": 24}]);
    let said = |spec: Value| refusals("ClusterNetworkConnect", &spec, None);
    assert_eq!(said(of_networks(one())), "");
    let both = |prefix: i32| json!([{"cidr": "2001:db8::/104", "networkPrefix": prefix}, {"cidr": "10.0.0.0/16", "networkPrefix": 24}]);
    assert_eq!(said(of_networks(both(120))), "");
    assert!(said(of_networks(both(119))).contains("networkPrefix must have matching host bits"));
    assert!(said(of_networks(json!([{"cidr": "10.0.0.0/16", "networkPrefix": 16}]))).contains("must be longer"));
    assert!(said(of_networks(json!([{"cidr": "10.0.0.0/16", "networkPrefix": 32}]))).contains("must < 32"));
    let mixed = spec("ClusterUserDefinedNetworks", "primaryUserDefinedNetworkSelector", one());
    assert!(said(mixed).contains("Inconsistent selector: both networkSelectionType PrimaryUserDefinedNetworks"));
    let secondary = spec("SecondaryUserDefinedNetworks", "secondaryUserDefinedNetworkSelector", one());
    assert!(said(secondary).contains("Only ClusterUserDefinedNetworks or PrimaryUserDefinedNetworks can be selected"));
    let (old, new) = (of_networks(one()), of_networks(json!([{"cidr": "10.1.0.0/16", "networkPrefix": 24}])));
    assert!(refusals("ClusterNetworkConnect", &new, Some(&old)).contains("connectSubnets is immutable"));
}

#[test]
fn no_field_may_be_null() {
    let text = serde_json::to_string(&udn_api::crds()).unwrap();
    assert!(!text.contains("nullable") && !text.contains("null"), "a schema allows null");
}
