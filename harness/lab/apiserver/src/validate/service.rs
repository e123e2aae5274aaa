//! Services, endpoint slices. Addresses and node ports are checked where they are given.

use std::net::IpAddr;

use serde_json::Value;

use super::names;
use crate::json::{list, text};
use crate::status::FieldError;

pub(super) fn service(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    let kind = text(spec, &["type"]);
    let ports = list(spec, &["ports"]);
    let headless = text(spec, &["clusterIP"]) == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let all = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        errors.push(FieldError::unsupported("spec.type", &spec["type"], all));
    }
    if !matches!(text(spec, &["sessionAffinity"]), "None" | "ClientIP") {
        errors.push(FieldError::unsupported("spec.sessionAffinity", &spec["sessionAffinity"], ["ClientIP", "None"]));
    }
    if kind == "ExternalName" && text(spec, &["externalName"]).is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    for (key, relevant) in [
        ("internalTrafficPolicy", kind != "ExternalName"),
        ("externalTrafficPolicy", spec.get("externalTrafficPolicy").is_some()),
    ] {
        if relevant && !matches!(text(spec, &[key]), "Cluster" | "Local") {
            errors.push(FieldError::unsupported(format!("spec.{key}"), &spec[key], ["Cluster", "Local"]));
        }
    }
    if text(spec, &["sessionAffinity"]) == "ClientIP" {
        let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        if !timeout.as_i64().is_some_and(|seconds| (1..=86400).contains(&seconds)) {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            errors.push(FieldError::invalid(path, timeout, "must be greater than 0 and less than 86400"));
        }
    }
    for (at, address) in list(spec, &["externalIPs"]).iter().enumerate() {
        external_address(&format!("spec.externalIPs[{at}]"), address, &mut errors);
    }
    let mut seen: Vec<(&Value, &Value)> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !name.is_empty()
            && let Some(problem) = names::label(name)
        {
            errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), &problem));
        }
        if ports[..at].iter().any(|other| !name.is_empty() && text(other, &["name"]) == name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
        }
        if !port["port"].as_i64().is_some_and(|number| (1..=65535).contains(&number)) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("{path}.port"), &port["port"], detail));
        }
        if !matches!(text(port, &["protocol"]), "TCP" | "UDP" | "SCTP") {
            errors.push(FieldError::unsupported(format!("{path}.protocol"), &port["protocol"], ["SCTP", "TCP", "UDP"]));
        }
        if port["targetPort"].as_i64().is_some_and(|number| !(1..=65535).contains(&number)) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("{path}.targetPort"), &port["targetPort"], detail));
        }
        if seen.contains(&(&port["port"], &port["protocol"])) {
            errors.push(FieldError::duplicate(path, port));
        }
        seen.push((&port["port"], &port["protocol"]));
    }
    errors
}

/// An address that somebody outside can have.
fn external_address(path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    let Some(address) = value.as_str().and_then(|text| text.parse::<IpAddr>().ok()) else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, value, detail));
        return;
    };
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    };
    for (is, what) in [
        (address.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        if is {
            errors.push(FieldError::invalid(path, value, what));
        }
    }
}

pub(super) fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(object, &["addressType"]);
    if !matches!(kind, "IPv4" | "IPv6" | "FQDN") {
        errors.push(FieldError::unsupported("addressType", &object["addressType"], ["FQDN", "IPv4", "IPv6"]));
    }
    if old.is_some_and(|old| old["addressType"] != object["addressType"]) {
        errors.push(FieldError::invalid("addressType", &object["addressType"], "field is immutable"));
    }
    for (at, endpoint) in list(object, &["endpoints"]).iter().enumerate() {
        let path = format!("endpoints[{at}].addresses");
        let addresses = list(endpoint, &["addresses"]);
        if addresses.is_empty() {
            errors.push(FieldError::required(&path, "must contain at least 1 address"));
        }
        for (number, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
            let good = match kind {
                "IPv4" => parsed.is_some_and(|ip| ip.is_ipv4()),
                "IPv6" => parsed.is_some_and(|ip| ip.is_ipv6()),
                _ => true,
            };
            if !good {
                let detail = format!("must be an {kind} address");
                errors.push(FieldError::invalid(format!("{path}[{number}]"), address, &detail));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(change: Value) -> Vec<String> {
        let mut spec = json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        service(&json!({"spec": spec})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_that_nobody_outside_has_are_refused() {
        assert!(problems(json!({"externalIPs": ["172.18.255.9", "2001:db8::1"]})).is_empty());
        for (address, words) in [
            ("nonsense", "must be a valid IP address"),
            ("0.0.0.0", "may not be unspecified"),
            ("127.0.0.1", "may not be in the loopback range"),
            ("fe80::1", "may not be in the link-local range"),
            ("224.0.0.5", "may not be in the link-local multicast range"),
        ] {
            let found = problems(json!({"externalIPs": [address]}));
            assert!(found.len() == 1 && found[0].contains(words), "{address}: {found:?}");
        }
    }

    #[test]
    fn policies_and_timeouts_have_their_values() {
        assert!(
            problems(json!({"internalTrafficPolicy": "Near"}))[0]
                .contains("spec.internalTrafficPolicy: Unsupported value")
        );
        assert!(
            problems(json!({"externalTrafficPolicy": "Near"}))[0]
                .contains("spec.externalTrafficPolicy: Unsupported value")
        );
        let affinity = |seconds: i64| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
        assert!(problems(affinity(10800)).is_empty());
        assert!(problems(affinity(0))[0].contains("must be greater than 0"));
    }
}
