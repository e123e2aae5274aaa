//! Services, endpoints, network policies. Addresses and node ports are given in `services`.

use serde_json::{Value, json};

use crate::json::{default, list, list_mut, map, text};

pub(super) fn service(value: &mut Value) {
    let spec = &mut value["spec"];
    map(spec);
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        default(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
    } else {
        crate::json::remove(spec, "sessionAffinityConfig");
    }
    for port in list_mut(spec, "ports") {
        default(port, "protocol", "TCP");
        let own = port["port"].clone();
        if port.get("targetPort").is_none_or(|target| target.is_null() || *target == 0 || *target == "") {
            port["targetPort"] = own;
        }
    }
    let kind = text(spec, &["type"]).to_owned();
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if external || !list(spec, &["externalIPs"]).is_empty() {
        default(spec, "externalTrafficPolicy", "Cluster");
    } else {
        crate::json::remove(spec, "externalTrafficPolicy");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    } else {
        crate::json::remove(spec, "allocateLoadBalancerNodePorts");
    }
}

pub(super) fn endpoints(value: &mut Value) {
    for subset in list_mut(value, "subsets") {
        for port in list_mut(subset, "ports") {
            default(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(value: &mut Value) {
    for port in list_mut(value, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

pub(super) fn policy(value: &mut Value) {
    let spec = &mut value["spec"];
    map(spec);
    for key in ["ingress", "egress"] {
        for rule in list_mut(spec, key) {
            for port in list_mut(rule, "ports") {
                default(port, "protocol", "TCP");
            }
        }
    }
    if list(spec, &["policyTypes"]).is_empty() {
        let mut types = vec!["Ingress"];
        if !list(spec, &["egress"]).is_empty() {
            types.push("Egress");
        }
        spec["policyTypes"] = json!(types);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_types_isolates_what_it_has_rules_for() {
        let mut one = json!({"spec": {"podSelector": {}}});
        policy(&mut one);
        assert_eq!(one["spec"]["policyTypes"], json!(["Ingress"]));
        let mut two = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        policy(&mut two);
        assert_eq!(two["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(two["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn a_port_leads_to_itself() {
        let mut one = json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "web"}]}});
        service(&mut one);
        assert_eq!(one["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
        assert_eq!(one["spec"]["ports"][1]["targetPort"], "web");
        assert_eq!(one["spec"]["type"], "ClusterIP");
    }
}
