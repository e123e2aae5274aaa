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
