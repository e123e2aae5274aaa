//! Which names pods can look up, and what these mean.

use super::policy::{self, End, Say};
use super::{Expected, Undefined, Wire, egress};
use crate::cell::{AddressOn, Expectation, Exposure, Target, VantagePoint};
use crate::dns::{DNS_LABEL, DNS_PORT, DNS_SERVICE, DnsName};
use crate::rule::RuleName;
use crate::words::{Family, Transport};
use crate::world::{Pod, Service, Whereabouts, World};

const SERVICES: &str = "services/dns";

/// What comes of a question to the cluster's DNS service, asked under its address of `family` for addresses of `family`.
///
/// # Errors
/// [`Undefined`] where no rule speaks of it.
pub fn expect_answer(
    world: &World,
    from: &VantagePoint,
    name: &DnsName,
    transport: Transport,
    family: Family,
) -> Result<Expected, Undefined> {
    let wire = Wire { transport, port: Some(DNS_PORT), family };
    if !matches!(transport, Transport::Tcp | Transport::Udp) {
        return Err(Undefined("DNS speaks TCP and UDP"));
    }
    let pod = egress::sender(world, from, wire)?;
    let (rule, expectation) = meaning(world, pod, name, family)?;
    Ok(match say(world, pod, wire) {
        Say::Nothing => Expected { expectation, rule: RuleName::new(rule) },
        Say::Allow => Expected { expectation, rule: RuleName::new(policy::ALLOW) },
        Say::Deny => Expected::closed(policy::DENY_EGRESS),
        Say::NotAllowed if policy::selects_dns(world, pod, wire) => Expected::closed(policy::NO_CROSS),
        Say::NotAllowed => Expected::closed(policy::ALLOW),
        Say::Unknown => return Err(Undefined("whether a block means the DNS servers is not known")),
    })
}

/// Whether policies let a pod ask the DNS service. They see the servers behind it, pods of the default network, of which
/// nothing is known here but the port.
fn say(world: &World, pod: &Pod, wire: Wire) -> Say {
    policy::egress(world, pod, End::Address(&Whereabouts::default()), wire)
}

/// What is said of a probe whose destination is what a name means: first the name, asked over UDP, then the probe.
pub(super) fn by_name(world: &World, from: &VantagePoint, name: &DnsName, wire: Wire) -> Result<Expected, Undefined> {
    match name {
        DnsName::ApiServer => egress::to_api_server(world, from, wire),
        _ => Err(Undefined("no rule speaks of connections to this name")),
    }
}

/// What policies say of the look-up that comes before a probe.
pub(super) fn say_before(world: &World, source: Option<&Pod>, to: &Target, wire: Wire) -> Say {
    match (to, source) {
        (Target::Name(_), Some(source)) => {
            say(world, source, Wire { transport: Transport::Udp, port: Some(DNS_PORT), family: wire.family })
        }
        _ => Say::Nothing,
    }
}

fn meaning(world: &World, pod: &Pod, name: &DnsName, family: Family) -> Result<(&'static str, Expectation), Undefined> {
    let outwards = if pod.primary.is_some() { "egress/api-server-and-dns" } else { "egress/default-untouched" };
    let resolves = |to: Vec<Target>| Expectation::Resolves { to };
    Ok(match name {
        DnsName::ApiServer => (outwards, resolves(vec![Target::ApiServer])),
        DnsName::External => (outwards, resolves(Vec::new())),
        DnsName::Nobody(_) | DnsName::Alone(_) => (SERVICES, Expectation::NoSuchName),
        DnsName::Service(service) => {
            let service = world.service(service).ok_or(Undefined("the world has no such service"))?;
            has_family(service, family)?;
            if !service.headless {
                let target = Target::Service { service: service.service.clone(), via: Exposure::ClusterIp };
                return Ok((SERVICES, resolves(vec![target])));
            }
            let members: Vec<Target> = service.selected(world).into_iter().map(on_default).collect();
            if members.is_empty() {
                return Err(Undefined("no rule speaks of headless services without endpoints"));
            }
            (SERVICES, resolves(members))
        }
        DnsName::Member { pod, service, .. } => {
            let pod = world.pod(pod).ok_or(Undefined("the world has no such pod"))?;
            let service = world
                .services
                .iter()
                .find(|it| it.headless && it.service.namespace == pod.pod.namespace && it.service.name == *service);
            let service = service.ok_or(Undefined("the world has no such headless service"))?;
            has_family(service, family)?;
            if !service.selected(world).iter().any(|member| member.pod == pod.pod) {
                return Err(Undefined("the service does not select the pod"));
            }
            (SERVICES, resolves(vec![on_default(pod)]))
        }
    })
}

fn has_family(service: &Service, family: Family) -> Result<(), Undefined> {
    let has = service.families.contains(&family);
    if has { Ok(()) } else { Err(Undefined("the service has no addresses of this family")) }
}

/// Names mean addresses of the default network, whatever the pod's primary network is.
fn on_default(pod: &Pod) -> Target {
    Target::Pod { pod: pod.pod.clone(), on: AddressOn::Default }
}

impl Pod {
    /// Labels of the namespace and of the pods behind the DNS service, for selectors.
    pub(super) fn of_dns() -> [(&'static str, &'static str); 2] {
        [("kubernetes.io/metadata.name", DNS_SERVICE.0), DNS_LABEL]
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::world::{PodRef, ServiceRef};

    fn manifests() -> Vec<Value> {
        let mut manifests = Vec::new();
        for (namespace, tenant) in [("blue", true), ("plain", false)] {
            let labels = if tenant { json!({ "k8s.ovn.org/primary-user-defined-network": "" }) } else { json!({}) };
            manifests.push(json!({ "kind": "Namespace", "metadata": { "name": namespace, "labels": labels } }));
            if tenant {
                manifests.push(json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": namespace },
                    "spec": { "topology": "Layer2", "layer2": { "role": "Primary", "subnets": ["10.0.0.0/16", "fd00::/64"] } } }));
            }
            for pod in ["a", "b"] {
                manifests.push(json!({ "kind": "Pod", "metadata": { "name": pod, "namespace": namespace,
                    "labels": { "app": "server", "udn-conformance.io/node": "0" } },
                    "spec": { "hostname": pod, "subdomain": "peers", "containers": [{ "name": "probe" }] } }));
            }
            for (service, headless) in [("web", false), ("peers", true)] {
                let mut spec = json!({ "selector": { "app": "server" }, "ports": [{ "port": 80 }], "ipFamilyPolicy": "PreferDualStack" });
                if headless {
                    spec["clusterIP"] = json!("None");
                }
                manifests.push(
                    json!({ "kind": "Service", "metadata": { "name": service, "namespace": namespace }, "spec": spec }),
                );
            }
        }
        manifests
    }

    fn policy(egress: Value) -> Value {
        json!({ "kind": "NetworkPolicy", "metadata": { "name": "p", "namespace": "blue" },
            "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": egress } })
    }

    fn expected(policy: Option<Value>, from: &str, name: &DnsName) -> (String, String) {
        let world = World::from_manifests(&manifests().into_iter().chain(policy).collect::<Vec<_>>()).unwrap();
        let from = VantagePoint::Pod(PodRef::new(from, "a"));
        let expected = expect_answer(&world, &from, name, Transport::Udp, Family::V6).unwrap();
        (expected.expectation.to_string(), expected.rule.to_string())
    }

    #[rstest]
    #[case::service(
        DnsName::Service(ServiceRef::new("blue", "web")),
        "resolves to svc.blue.web@cluster-ip",
        "services/dns"
    )]
    #[case::of_another_network(
        DnsName::Service(ServiceRef::new("plain", "web")),
        "resolves to svc.plain.web@cluster-ip",
        "services/dns"
    )]
    #[case::headless(
        DnsName::Service(ServiceRef::new("blue", "peers")),
        "resolves to blue.a@default and blue.b@default",
        "services/dns"
    )]
    #[case::member(
        DnsName::Member { pod: PodRef::new("blue", "b"), hostname: "b".into(), service: "peers".into() },
        "resolves to blue.b@default",
        "services/dns"
    )]
    #[case::alone(DnsName::Alone(PodRef::new("blue", "b")), "no such name", "services/dns")]
    #[case::nobody(DnsName::Nobody("blue".into()), "no such name", "services/dns")]
    #[case::api_server(DnsName::ApiServer, "resolves to api-server", "egress/api-server-and-dns")]
    #[case::external(DnsName::External, "resolves", "egress/api-server-and-dns")]
    fn names_mean_addresses_of_the_default_network(#[case] name: DnsName, #[case] what: &str, #[case] rule: &str) {
        assert_eq!(expected(None, "blue", &name), (what.to_owned(), rule.to_owned()));
        let rule = if rule.starts_with("egress/") { "egress/default-untouched" } else { rule };
        assert_eq!(expected(None, "plain", &name), (what.to_owned(), rule.to_owned()));
    }

    #[rstest]
    #[case::everything_denied(json!([]), "closed", "policy/deny-egress")]
    #[case::by_port(json!([{ "ports": [{ "protocol": "UDP", "port": 53 }] }]), "resolves to api-server", "policy/allow-rules")]
    #[case::another_port(json!([{ "ports": [{ "protocol": "TCP", "port": 53 }] }]), "closed", "policy/allow-rules")]
    #[case::by_selector(
        json!([{ "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
            "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } } }], "ports": [{ "protocol": "UDP", "port": 53 }] }]),
        "closed",
        "policy/no-cross-network"
    )]
    fn policies_cut_it_unless_they_allow_its_port(#[case] egress: Value, #[case] what: &str, #[case] rule: &str) {
        let found = expected(Some(policy(egress)), "blue", &DnsName::ApiServer);
        assert_eq!(found, (what.to_owned(), rule.to_owned()));
    }

    #[test]
    fn a_connection_by_name_needs_both() {
        let by_name = |egress: Value| {
            let world =
                World::from_manifests(&manifests().into_iter().chain([policy(egress)]).collect::<Vec<_>>()).unwrap();
            let from = VantagePoint::Pod(PodRef::new("blue", "a"));
            let wire = Wire { transport: Transport::Tcp, port: Some(443), family: Family::V4 };
            super::super::expect(&world, &from, &Target::Name(DnsName::ApiServer), wire).unwrap().expectation.word()
        };
        let dns = json!({ "ports": [{ "protocol": "UDP", "port": 53 }] });
        let api = json!({ "ports": [{ "port": 443 }] });
        assert_eq!(by_name(json!([dns.clone()])), "closed");
        assert_eq!(by_name(json!([api.clone()])), "closed");
        assert_eq!(by_name(json!([dns, api])), "open");
    }
}
