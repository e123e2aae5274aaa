//! Network policies.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::names;
use crate::json::{list, text};
use crate::status::FieldError;

const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const BAD_PORT: &str = "must be between 1 and 65535, inclusive";
/// The longest name of a port, in bytes.
const LONGEST_PORT_NAME: usize = 15;

pub(super) fn network_policy(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut errors = Vec::new();
    selector(&spec["podSelector"], "spec.podSelector", &mut errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in list(spec, &[direction]).iter().enumerate() {
            for (number, one) in list(rule, &["ports"]).iter().enumerate() {
                port(one, &format!("spec.{direction}[{at}].ports[{number}]"), &mut errors);
            }
            for (number, one) in list(rule, &[peers]).iter().enumerate() {
                peer(one, &format!("spec.{direction}[{at}].{peers}[{number}]"), &mut errors);
            }
        }
    }
    let types = list(spec, &["policyTypes"]);
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", &spec["policyTypes"], detail));
        return errors;
    }
    for (at, kind) in types.iter().enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            let path = format!("spec.policyTypes[{at}]");
            errors.push(FieldError::unsupported(path, kind, ["Ingress", "Egress"]));
        }
    }
    errors
}

fn port(one: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let protocol = one.get("protocol").filter(|protocol| !protocol.is_null());
    if let Some(protocol) = protocol.filter(|it| !matches!(it.as_str(), Some("TCP" | "UDP" | "SCTP"))) {
        errors.push(FieldError::unsupported(format!("{path}.protocol"), protocol, ["TCP", "UDP", "SCTP"]));
    }
    let good = |number: i64| (1..=65535).contains(&number);
    let last = one.get("endPort").filter(|last| !last.is_null());
    let mut bad_last = |detail: &str| {
        errors.extend(last.map(|last| FieldError::invalid(format!("{path}.endPort"), last, detail)));
    };
    match one.get("port").filter(|port| !port.is_null()) {
        None => bad_last("may not be specified when `port` is not specified"),
        Some(Value::String(name)) => {
            bad_last("may not be specified when `port` is non-numeric");
            let problems = port_name(name);
            let path = format!("{path}.port");
            errors.extend(problems.iter().map(|detail| FieldError::invalid(&path, &name.as_str().into(), detail)));
        }
        Some(port) => {
            let first = port.as_i64().unwrap_or_default();
            if let Some(last) = last.and_then(Value::as_i64) {
                if last < first {
                    bad_last("must be greater than or equal to `port`");
                }
                if !good(last) {
                    bad_last(BAD_PORT);
                }
            }
            if !good(first) {
                errors.push(FieldError::invalid(format!("{path}.port"), port, BAD_PORT));
            }
        }
    }
}

/// What is wrong with a port's name (RFC 6335).
fn port_name(name: &str) -> Vec<&'static str> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let problems = [
        (name.len() > LONGEST_PORT_NAME, "must be no more than 15 bytes"),
        (
            name.is_empty() || !name.chars().all(known),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!name.contains(|c: char| c.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    problems.into_iter().filter(|(holds, _)| *holds).map(|(_, detail)| detail).collect()
}

fn peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let given = |key: &str| peer.get(key).filter(|value| !value.is_null());
    let mut selects = false;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(one) = given(key) {
            selects = true;
            selector(one, &format!("{path}.{key}"), errors);
        }
    }
    match given("ipBlock") {
        Some(one) => {
            block(one, &format!("{path}.ipBlock"), errors);
            if selects {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
        None if !selects => errors.push(FieldError::required(path, "must specify a peer")),
        None => {}
    }
}

fn block(block: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let cidr = text(block, &["cidr"]);
    if cidr.is_empty() {
        errors.push(FieldError::required(format!("{path}.cidr"), ""));
        return;
    }
    let Some(whole) = network(cidr) else {
        errors.push(FieldError::invalid(format!("{path}.cidr"), &block["cidr"], BAD_CIDR));
        return;
    };
    for (at, except) in list(block, &["except"]).iter().enumerate() {
        let path = format!("{path}.except[{at}]");
        match except.as_str().and_then(network) {
            None => errors.push(FieldError::invalid(path, except, BAD_CIDR)),
            Some(inside) if !whole.contains(&inside) || inside.prefix_len() == whole.prefix_len() => {
                errors.push(FieldError::invalid(path, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

/// A network as Kubernetes reads it: leading zeros are no octal numbers, and forgiven.
fn network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let plain = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let address = if address.contains(':') {
        address.to_owned()
    } else {
        address.split('.').map(plain).collect::<Vec<_>>().join(".")
    };
    let length = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok())??;
    IpNet::new(address.parse::<IpAddr>().ok()?, length).ok()
}

/// A label selector.
fn selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.matchLabels");
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        errors.extend(names::qualified(key).map(|detail| FieldError::invalid(&at, &key.as_str().into(), &detail)));
        let problem = names::label_value(value.as_str().unwrap_or_default());
        errors.extend(problem.map(|detail| FieldError::invalid(&at, value, &detail)));
    }
    for (number, requirement) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let path = format!("{path}.matchExpressions[{number}]");
        let values = list(requirement, &["values"]);
        match text(requirement, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{path}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{path}.operator"), &requirement["operator"], detail));
            }
        }
        let key = text(requirement, &["key"]);
        let problem = names::qualified(key);
        errors.extend(problem.map(|detail| FieldError::invalid(format!("{path}.key"), &key.into(), &detail)));
        for (number, value) in values.iter().enumerate() {
            let problem = names::label_value(value.as_str().unwrap_or_default());
            let path = format!("{path}.values[{number}]");
            errors.extend(problem.map(|detail| FieldError::invalid(path, value, &detail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(spec: Value) -> Vec<String> {
        network_policy(&json!({ "spec": spec })).iter().map(ToString::to_string).collect()
    }

    fn of_port(port: Value) -> Vec<String> {
        said(json!({"podSelector": {}, "ingress": [{"ports": [port]}]}))
    }

    fn of_peer(peer: Value) -> Vec<String> {
        said(json!({"podSelector": {}, "egress": [{"to": [peer]}]}))
    }

    #[test]
    fn good_policies_pass() {
        let all = json!({
            "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x/y", "operator": "NotIn", "values": ["", "a"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{}, {"port": 1, "endPort": 65535}, {"port": "web-1", "protocol": "SCTP"}], "from": [
                {"podSelector": {}}, {"namespaceSelector": {}, "podSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}},
            ]}],
            "egress": [{}],
        });
        assert!(said(all).is_empty());
        assert!(said(json!({"podSelector": {}})).is_empty());
    }

    #[test]
    fn ports_are_judged_in_kubernetes_words() {
        let at = "spec.ingress[0].ports[0]";
        assert_eq!(of_port(json!({"port": 0})), [format!("{at}.port: Invalid value: 0: {BAD_PORT}")]);
        assert_eq!(of_port(json!({"port": 65536})), [format!("{at}.port: Invalid value: 65536: {BAD_PORT}")]);
        assert_eq!(
            of_port(json!({"port": 20, "endPort": 10})),
            [format!("{at}.endPort: Invalid value: 10: must be greater than or equal to `port`")]
        );
        assert_eq!(
            of_port(json!({"port": 20, "endPort": 70000})),
            [format!("{at}.endPort: Invalid value: 70000: {BAD_PORT}")]
        );
        assert_eq!(
            of_port(json!({"endPort": 10})),
            [format!("{at}.endPort: Invalid value: 10: may not be specified when `port` is not specified")]
        );
        assert_eq!(
            of_port(json!({"port": "web", "endPort": 10})),
            [format!("{at}.endPort: Invalid value: 10: may not be specified when `port` is non-numeric")]
        );
        assert_eq!(
            of_port(json!({"port": 80, "protocol": "ICMP"})),
            [format!("{at}.protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"")]
        );
        assert_eq!(of_port(json!({"port": "Web"})).len(), 1);
        assert_eq!(of_port(json!({"port": "much-too-long-name"})).len(), 1);
        assert_eq!(of_port(json!({"port": "-1-"})).len(), 2);
    }

    #[test]
    fn peers_are_judged_in_kubernetes_words() {
        let at = "spec.egress[0].to[0]";
        assert_eq!(of_peer(json!({})), [format!("{at}: Required value: must specify a peer")]);
        assert_eq!(
            of_peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            [format!("{at}: Forbidden: may not specify both ipBlock and another peer")]
        );
        for bad in ["10.0.0.0", "10.0.0.0/33", "300.0.0.0/8", "fd00::/129", "x/8", "10.0.0.0/+8"] {
            let expected = format!("{at}.ipBlock.cidr: Invalid value: {bad:?}: {BAD_CIDR}");
            assert_eq!(of_peer(json!({"ipBlock": {"cidr": bad}})), [expected]);
        }
        assert_eq!(of_peer(json!({"ipBlock": {"cidr": ""}})), [format!("{at}.ipBlock.cidr: Required value")]);
        let except = |except: &str| of_peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [except]}}));
        for outside in ["11.0.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "fd00::/16"] {
            let expected =
                format!("{at}.ipBlock.except[0]: Invalid value: {outside:?}: must be a strict subset of `cidr`");
            assert_eq!(except(outside), [expected]);
        }
        assert_eq!(except("10.1"), [format!("{at}.ipBlock.except[0]: Invalid value: \"10.1\": {BAD_CIDR}")]);
    }

    #[test]
    fn types_and_selectors_are_judged_in_kubernetes_words() {
        assert_eq!(
            said(json!({"podSelector": {}, "policyTypes": ["Sideways"]})),
            ["spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\""]
        );
        assert_eq!(
            said(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress", "Ingress"]})),
            [
                "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes"
            ]
        );
        let expression = |requirement: Value| said(json!({"podSelector": {"matchExpressions": [requirement]}}));
        let at = "spec.podSelector.matchExpressions[0]";
        assert_eq!(
            expression(json!({"key": "a", "operator": "In"})),
            [format!("{at}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'")]
        );
        assert_eq!(
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            [format!("{at}.values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")]
        );
        assert_eq!(
            expression(json!({"key": "a", "operator": "Near"})),
            [format!("{at}.operator: Invalid value: \"Near\": not a valid selector operator")]
        );
        assert_eq!(expression(json!({"key": "-", "operator": "Exists"})).len(), 1);
        assert_eq!(said(json!({"podSelector": {"matchLabels": {"a": "b c"}}})).len(), 1);
    }
}
