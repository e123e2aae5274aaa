//! Cluster addresses and node ports of services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::json::{at, int, list, list_mut, map, name, remove, text};
use crate::server::Cluster;
use crate::status::{FieldError, Rejection};

/// Service addresses: 10.96.0.0/16, kubeadm's choice.
const V4: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// Service addresses: fd00:10:96::/112, kind's choice.
const V6: ipnet::Ipv6Net = ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
/// Node ports, the default of Kubernetes.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;
/// The lowest addresses are left to those who ask for one; Kubernetes does so for 16 to 256 of them.
const RESERVED: u32 = 256;

/// Serializes writes of services, so that no address is given twice.
#[derive(Default)]
pub(crate) struct Allocator(Mutex<()>);

impl Allocator {
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What other services have.
struct Taken {
    addresses: BTreeSet<IpAddr>,
    /// (port, protocol)
    ports: BTreeSet<(i64, String)>,
}

impl Taken {
    fn by_others(cluster: &Cluster, service: &Value) -> Self {
        let mut taken = Self { addresses: BTreeSet::new(), ports: BTreeSet::new() };
        let (_, services) = cluster.store.list("services", None);
        for other in services {
            let same =
                name(&other) == name(service) && crate::json::namespace(&other) == crate::json::namespace(service);
            if same {
                continue;
            }
            taken.addresses.extend(addresses(&other));
            for port in list(&other, &["spec", "ports"]) {
                if let Some(number) = int(port, &["nodePort"]) {
                    taken.ports.insert((number, text(port, &["protocol"]).to_owned()));
                }
            }
            if let Some(number) = int(&other, &["spec", "healthCheckNodePort"]) {
                taken.ports.insert((number, "TCP".into()));
            }
        }
        taken
    }
}

fn addresses(service: &Value) -> Vec<IpAddr> {
    list(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str).filter_map(|ip| ip.parse().ok()).collect()
}

/// Gives a service its addresses and node ports. `current` is what it replaces.
pub(crate) fn allocate(cluster: &Cluster, service: &mut Value, current: Option<&Value>) -> Result<(), Rejection> {
    let taken = Taken::by_others(cluster, service);
    let title = name(service).to_owned();
    let refuse = |error: FieldError| Rejection::invalid("Service", &title, &[error]);
    if text(service, &["spec", "type"]) == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(&mut service["spec"], key);
        }
        return Ok(());
    }
    cluster_addresses(service, current, &taken).map_err(refuse)?;
    node_ports(service, current, &taken).map_err(refuse)
}

fn cluster_addresses(service: &mut Value, current: Option<&Value>, taken: &Taken) -> Result<(), FieldError> {
    let spec = &mut service["spec"];
    if let Some(current) = current.filter(|current| text(current, &["spec", "type"]) != "ExternalName") {
        // Addresses stay; only the second one may come and go.
        let before = list(current, &["spec", "clusterIPs"]).to_vec();
        let first = before.first().cloned().unwrap_or_default();
        if text(spec, &["clusterIP"]).is_empty() {
            spec["clusterIP"] = first.clone();
        } else if spec["clusterIP"] != first {
            return Err(FieldError::invalid(
                "spec.clusterIPs[0]",
                &json!([spec["clusterIP"]]),
                "may not change once set",
            ));
        }
        if list(spec, &["clusterIPs"]).is_empty() {
            spec["clusterIPs"] = before.into();
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(key).is_none_or(crate::json::is_empty) {
                crate::json::carry(spec, &current["spec"], key);
            }
        }
    }
    let mut wanted: Vec<String> =
        list(spec, &["clusterIPs"]).iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    let one = text(spec, &["clusterIP"]).to_owned();
    if wanted.is_empty() && !one.is_empty() {
        wanted.push(one.clone());
    } else if !one.is_empty() && wanted.first() != Some(&one) {
        return Err(FieldError::invalid("spec.clusterIPs", &json!(wanted), "first value must match `clusterIP`"));
    }
    if wanted.first().is_some_and(|ip| ip == "None") {
        return headless(spec);
    }
    let families = families(spec, &wanted)?;
    let mut given = Vec::new();
    for (at, family) in families.iter().enumerate() {
        let path = format!("spec.clusterIPs[{at}]");
        let ip = match wanted.get(at).filter(|ip| !ip.is_empty()) {
            Some(ip) => check(&path, ip, *family, taken)?,
            None => free(*family, taken).ok_or_else(|| {
                FieldError::invalid("spec.clusterIPs", &json!([]), "failed to allocate IP: range is full")
            })?,
        };
        given.push(ip.to_string());
    }
    spec["clusterIP"] = given.first().cloned().into();
    spec["clusterIPs"] = given.into();
    spec["ipFamilies"] = families.iter().map(|family| family.name()).collect::<Vec<_>>().into();
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// Which families a service gets, the first one first; sets its policy.
fn families(spec: &mut Value, wanted: &[String]) -> Result<Vec<Family>, FieldError> {
    let mut families = Vec::new();
    for (at, family) in list(spec, &["ipFamilies"]).iter().enumerate() {
        match family.as_str() {
            Some("IPv4") => families.push(Family::V4),
            Some("IPv6") => families.push(Family::V6),
            _ => {
                return Err(FieldError::unsupported(format!("spec.ipFamilies[{at}]"), family, ["IPv4", "IPv6"]));
            }
        }
    }
    let given = !families.is_empty();
    for (at, ip) in wanted.iter().enumerate().filter(|(_, ip)| !ip.is_empty()) {
        let Ok(parsed) = ip.parse::<IpAddr>() else {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            return Err(FieldError::invalid(format!("spec.clusterIPs[{at}]"), &json!(ip), detail));
        };
        let family = if parsed.is_ipv4() { Family::V4 } else { Family::V6 };
        if at >= families.len() {
            families.push(family);
        }
    }
    let policy = match text(spec, &["ipFamilyPolicy"]) {
        "" if families.len() > 1 && given => {
            return Err(FieldError::invalid(
                "spec.ipFamilyPolicy",
                &json!("SingleStack"),
                "must be RequireDualStack or PreferDualStack when multiple IP families are specified",
            ));
        }
        "" => "SingleStack",
        "SingleStack" => "SingleStack",
        "PreferDualStack" => "PreferDualStack",
        "RequireDualStack" => "RequireDualStack",
        other => {
            return Err(FieldError::unsupported(
                "spec.ipFamilyPolicy",
                &json!(other),
                ["PreferDualStack", "RequireDualStack", "SingleStack"],
            ));
        }
    };
    if families.is_empty() {
        families.push(Family::V4);
    }
    if policy == "SingleStack" {
        families.truncate(1);
    } else if families.len() == 1 {
        families.push(families[0].other());
    }
    if families.len() == 2 && families[0] == families[1] {
        return Err(FieldError::duplicate("spec.ipFamilies[1]", &json!(families[1].name())));
    }
    spec["ipFamilyPolicy"] = policy.into();
    Ok(families)
}

fn headless(spec: &mut Value) -> Result<(), FieldError> {
    if matches!(text(spec, &["type"]), "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {} services", text(spec, &["type"]));
        return Err(FieldError::invalid("spec.clusterIPs[0]", &json!("None"), &detail));
    }
    spec["clusterIP"] = "None".into();
    spec["clusterIPs"] = json!(["None"]);
    // Without a selector nobody knows which families the endpoints will have.
    let selectorless = at(spec, &["selector"]).is_none_or(crate::json::is_empty);
    if selectorless && text(spec, &["ipFamilyPolicy"]).is_empty() && list(spec, &["ipFamilies"]).is_empty() {
        spec["ipFamilyPolicy"] = "RequireDualStack".into();
    }
    let families = families(spec, &[])?;
    spec["ipFamilies"] = families.iter().map(|family| family.name()).collect::<Vec<_>>().into();
    Ok(())
}

fn check(path: &str, ip: &str, family: Family, taken: &Taken) -> Result<IpAddr, FieldError> {
    let refuse = |why: String| FieldError::invalid(path, &json!(ip), &why);
    let parsed: IpAddr =
        ip.parse().map_err(|_| refuse("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()))?;
    if parsed.is_ipv4() != (family == Family::V4) {
        return Err(refuse(format!("expected an {} value as indicated by `ipFamilies[0]`", family.name())));
    }
    let (inside, range) = match parsed {
        IpAddr::V4(ip) => (V4.contains(&ip) && ip != V4.network() && ip != V4.broadcast(), V4.to_string()),
        IpAddr::V6(ip) => (V6.contains(&ip) && ip != V6.network(), V6.to_string()),
    };
    if !inside {
        return Err(refuse(format!(
            "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
        )));
    }
    if taken.addresses.contains(&parsed) {
        return Err(refuse(format!("failed to allocate IP {ip}: provided IP is already allocated")));
    }
    Ok(parsed)
}

/// A free address: random, as Kubernetes does, so that nothing depends on which one it is.
fn free(family: Family, taken: &Taken) -> Option<IpAddr> {
    let size: u32 = 1 << 16;
    let start = RESERVED + rand::random_range(0..size - RESERVED - 1);
    (start..size - 1)
        .chain(RESERVED..start)
        .map(|offset| address(family, offset))
        .find(|ip| !taken.addresses.contains(ip))
}

fn address(family: Family, offset: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(V4.network().to_bits() + offset).into(),
        Family::V6 => Ipv6Addr::from_bits(V6.network().to_bits() + u128::from(offset)).into(),
    }
}

fn node_ports(service: &mut Value, current: Option<&Value>, taken: &Taken) -> Result<(), FieldError> {
    let spec = &mut service["spec"];
    let wants = match text(spec, &["type"]) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => {
            for port in list_mut(spec, "ports") {
                remove(port, "nodePort");
            }
            remove(spec, "healthCheckNodePort");
            return Ok(());
        }
    };
    let before: Vec<Value> = current.map(|current| list(current, &["spec", "ports"]).to_vec()).unwrap_or_default();
    let mut used: BTreeSet<(i64, String)> = BTreeSet::new();
    let mut fresh = Vec::new();
    for (at, port) in list_mut(spec, "ports").iter_mut().enumerate() {
        let protocol = text(port, &["protocol"]).to_owned();
        let kept = || {
            let same = |old: &&Value| old["port"] == port["port"] && old["protocol"] == port["protocol"];
            before.iter().find(same).and_then(|old| int(old, &["nodePort"]))
        };
        let wanted = int(port, &["nodePort"]).filter(|number| *number != 0).or_else(kept);
        let Some(number) = wanted else {
            if wants {
                fresh.push(at);
            }
            continue;
        };
        let path = format!("spec.ports[{at}].nodePort");
        if !NODE_PORTS.contains(&number) {
            return Err(FieldError::invalid(
                path,
                &json!(number),
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            ));
        }
        if taken.ports.contains(&(number, protocol.clone())) || used.contains(&(number, protocol.clone())) {
            return Err(FieldError::invalid(path, &json!(number), "provided port is already allocated"));
        }
        used.insert((number, protocol));
        map(port).insert("nodePort".into(), number.into());
    }
    for at in fresh {
        let port = &mut list_mut(spec, "ports")[at];
        let protocol = text(port, &["protocol"]).to_owned();
        let number = free_port(taken, &used, &protocol)
            .ok_or_else(|| FieldError::invalid(format!("spec.ports[{at}].nodePort"), &json!(0), "range is full"))?;
        used.insert((number, protocol));
        map(port).insert("nodePort".into(), number.into());
    }
    health_check_port(spec, current, taken, &used)
}

/// A load balancer with local external traffic asks nodes whether they have endpoints.
fn health_check_port(
    spec: &mut Value,
    current: Option<&Value>,
    taken: &Taken,
    used: &BTreeSet<(i64, String)>,
) -> Result<(), FieldError> {
    if text(spec, &["type"]) != "LoadBalancer" || text(spec, &["externalTrafficPolicy"]) != "Local" {
        remove(spec, "healthCheckNodePort");
        return Ok(());
    }
    if int(spec, &["healthCheckNodePort"]).is_some_and(|number| number != 0) {
        return Ok(());
    }
    let kept = current.and_then(|current| int(current, &["spec", "healthCheckNodePort"]));
    let number = kept.or_else(|| free_port(taken, used, "TCP"));
    let number = number
        .ok_or_else(|| FieldError::invalid("spec.healthCheckNodePort", &json!(0), "failed to allocate a nodePort"))?;
    spec["healthCheckNodePort"] = number.into();
    Ok(())
}

fn free_port(taken: &Taken, used: &BTreeSet<(i64, String)>, protocol: &str) -> Option<i64> {
    let start = rand::random_range(NODE_PORTS);
    (start..=*NODE_PORTS.end()).chain(*NODE_PORTS.start()..start).find(|number| {
        let key = (*number, protocol.to_owned());
        !taken.ports.contains(&key) && !used.contains(&key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Taken {
        Taken { addresses: BTreeSet::new(), ports: BTreeSet::new() }
    }

    fn addressed(spec: Value) -> Result<Value, FieldError> {
        let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
        cluster_addresses(&mut service, None, &nobody())?;
        Ok(service["spec"].take())
    }

    #[test]
    fn families_follow_the_policy() {
        let one = addressed(json!({})).unwrap();
        assert_eq!((&one["ipFamilyPolicy"], &one["ipFamilies"]), (&json!("SingleStack"), &json!(["IPv4"])));
        assert!(one["clusterIP"].as_str().unwrap().starts_with("10.96."));
        let two = addressed(json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]})).unwrap();
        assert_eq!(two["ipFamilies"], json!(["IPv6", "IPv4"]));
        assert!(two["clusterIP"].as_str().unwrap().starts_with("fd00:10:96::"));
        assert_eq!(two["clusterIPs"].as_array().unwrap().len(), 2);
        let none = addressed(json!({"clusterIP": "None", "selector": {"a": "b"}})).unwrap();
        assert_eq!((&none["clusterIPs"], &none["ipFamilies"]), (&json!(["None"]), &json!(["IPv4"])));
    }

    #[test]
    fn refused_addresses() {
        let text = addressed(json!({"clusterIP": "10.97.0.1"})).unwrap_err().to_string();
        assert_eq!(
            text,
            "spec.clusterIPs[0]: Invalid value: \"10.97.0.1\": failed to allocate IP 10.97.0.1: the provided IP \
             (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
        );
        let mut taken = nobody();
        taken.addresses.insert("10.96.0.9".parse().unwrap());
        let text = check("spec.clusterIPs[0]", "10.96.0.9", Family::V4, &taken).unwrap_err().to_string();
        assert!(text.ends_with("failed to allocate IP 10.96.0.9: provided IP is already allocated"), "{text}");
    }

    #[test]
    fn node_ports_are_kept_and_checked() {
        let mut service = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        node_ports(&mut service, None, &nobody()).unwrap();
        let number = service["spec"]["ports"][0]["nodePort"].clone();
        assert!(NODE_PORTS.contains(&number.as_i64().unwrap()));
        let mut again = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        node_ports(&mut again, Some(&service), &nobody()).unwrap();
        assert_eq!(again["spec"]["ports"][0]["nodePort"], number);
        let mut bad = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}});
        assert!(node_ports(&mut bad, None, &nobody()).is_err());
    }
}
