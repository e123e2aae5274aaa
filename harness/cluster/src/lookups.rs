//! Names in full, and the agent's questions to DNS servers.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use udn_agent::protocol::{self, Body, Op, RecordType, Resolution, Resolve, Resolved};
use udn_model::cell::Feature;
use udn_model::dns::{DNS_PORT, DnsName};
use udn_model::naming::Naming;
use udn_model::observation::{Outcome, Rcode};
use udn_model::words::{Family, Transport};
use udn_runner::cluster::{NodeAddresses, Report, Shot};

use crate::agent::arrivals::plain;
use crate::agent::{Agent, AgentError};
use crate::names::EXTERNAL_NAME;
use crate::probes::{ADDRESS_IN_USE, ADDRESS_NOT_AVAILABLE, GRACE, failure, seen, transport};

/// The domain of a cluster whose pods do not say another one.
const USUAL_DOMAIN: &str = "cluster.local";

/// The cluster's DNS service, and a name outside of the cluster that it knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dns {
    /// ClusterIPs.
    pub(crate) servers: Vec<IpAddr>,
    external: Option<External>,
}

#[derive(Clone, Debug)]
struct External {
    name: String,
    /// Whether it is the name of the external vantage point's host: then it is known what it means.
    is_host: bool,
}

impl Dns {
    /// `said`: what the user says; else what the external vantage point's pod does.
    pub(crate) fn new(servers: Vec<IpAddr>, said: Option<&str>, external: Option<&Pod>) -> Self {
        let annotated = || external?.annotations().get(EXTERNAL_NAME).cloned();
        let external = match said {
            Some(name) => Some(External { name: name.into(), is_host: false }),
            None => annotated().map(|name| External { name, is_host: true }),
        };
        Self { servers, external }
    }

    /// What cells about names may count on.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        if !self.servers.is_empty() {
            features.push(Feature::ClusterDns);
        }
        match &self.external {
            Some(External { is_host: true, .. }) => features.extend([Feature::ExternalNameV4, Feature::ExternalNameV6]),
            Some(External { is_host: false, .. }) => features.push(Feature::ExternalNameV4),
            None => {}
        }
        features
    }

    /// The name outside of the cluster.
    pub(crate) fn external(&self) -> Option<&str> {
        self.external.as_ref().map(|external| external.name.as_str())
    }

    /// What that name means; empty: whatever it does.
    pub(crate) fn meaning(&self, host: Option<&NodeAddresses>) -> Option<Vec<IpAddr>> {
        match self.external.as_ref()?.is_host {
            true => host.map(|host| host.addresses.clone()),
            false => Some(Vec::new()),
        }
    }
}

/// What names are called in full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) naming: &'a Naming,
    pub(crate) domain: &'a str,
    pub(crate) external: Option<&'a str>,
}

impl Names<'_> {
    pub(crate) fn text(&self, name: &DnsName) -> Option<String> {
        name.text(self.naming, self.domain, self.external)
    }
}

/// The cluster's domain, as the resolver's configuration in a pod has it.
pub(crate) async fn domain(agent: &Agent) -> Result<String, AgentError> {
    match agent.call(Op::Facts, GRACE).await? {
        Body::Facts(facts) => Ok(domain_of(&facts.resolvers)),
        other => Err(AgentError::Failed(format!("the agent answered {other:?} when asked for facts"))),
    }
}

/// Among `<namespace>.svc.<domain>`, `svc.<domain>` and `<domain>`.
fn domain_of(resolvers: &protocol::Resolvers) -> String {
    let domain = resolvers.search.iter().find_map(|search| search.strip_prefix("svc."));
    domain.unwrap_or(USUAL_DOMAIN).trim_end_matches('.').to_owned()
}

/// Asks the server at the shot's destination.
pub(crate) async fn question(
    agent: &Agent,
    shot: &Shot,
    name: &DnsName,
    family: Family,
    names: Option<&Names<'_>>,
) -> Report {
    let server = SocketAddr::new(shot.to, shot.port.unwrap_or(DNS_PORT));
    match look_up(agent, shot, (name, family, shot.transport), server, shot.source_port, names).await {
        Ok(resolved) => {
            let local = resolved.local.map(plain);
            Report { nonce: shot.nonce, outcome: outcome(resolved), local, flow: None }
        }
        Err(outcome) => Report { nonce: shot.nonce, outcome, local: None, flow: None },
    }
}

/// The first address that a name means, of the shot's family.
///
/// # Errors
/// The outcome of the look-up where there is none.
pub(crate) async fn first(
    agent: &Agent,
    shot: &Shot,
    name: &DnsName,
    server: IpAddr,
    names: Option<&Names<'_>>,
) -> Result<IpAddr, Outcome> {
    let server = SocketAddr::new(server, DNS_PORT);
    let asked = (name, Family::of(shot.to), Transport::Udp);
    let resolved = look_up(agent, shot, asked, server, None, names).await?;
    match outcome(resolved) {
        Outcome::Answered { rcode: Rcode::NoError, addresses, .. } if !addresses.is_empty() => Ok(addresses[0]),
        other => Err(other),
    }
}

async fn look_up(
    agent: &Agent,
    shot: &Shot,
    (name, family, spoken): (&DnsName, Family, Transport),
    server: SocketAddr,
    source_port: Option<u16>,
    names: Option<&Names<'_>>,
) -> Result<Resolved, Outcome> {
    let text = names.and_then(|names| names.text(name));
    let text =
        text.ok_or_else(|| Outcome::Unresolved { why: format!("it is not known what {name} is called in full") })?;
    let transport =
        transport(spoken).ok_or_else(|| Outcome::AgentFailed { why: format!("the agent does not speak {spoken}") })?;
    let ask = |source_port| Resolve {
        name: text.clone(),
        record: if family == Family::V4 { RecordType::A } else { RecordType::Aaaa },
        transport,
        server: Some(server),
        source_port,
        timeout_ms: u32::try_from(shot.timeout.as_millis()).unwrap_or(u32::MAX),
    };
    let put = async |question| match agent.call(Op::Resolve(question), shot.timeout + GRACE).await {
        Ok(Body::Resolved(resolved)) => Ok(resolved),
        Ok(other) => Err(Outcome::AgentFailed { why: format!("the agent answered {other:?} to a question") }),
        Err(error) => Err(failure(&error)),
    };
    let resolved = put(ask(source_port)).await?;
    if source_port.is_some() && is_taken(&resolved) { put(ask(None)).await } else { Ok(resolved) }
}

/// Whether the source port belonged to somebody else.
fn is_taken(resolved: &Resolved) -> bool {
    matches!(&resolved.outcome, Resolution::Unanswered(protocol::Outcome::AgentFailed(failure))
        if matches!(failure.errno, ADDRESS_IN_USE | ADDRESS_NOT_AVAILABLE))
}

fn outcome(resolved: Resolved) -> Outcome {
    let own = resolved.local.map(|local| local.ip());
    match resolved.outcome {
        Resolution::Answered(answer) => {
            let mut addresses: Vec<IpAddr> = answer.addresses;
            addresses.sort_unstable();
            addresses.dedup();
            Outcome::Answered {
                rcode: Rcode::from(answer.rcode),
                addresses,
                truncated: answer.truncated,
                asked: resolved.asked,
                took_us: resolved.took_us,
            }
        }
        Resolution::Garbled { why } => Outcome::Garbled { why },
        Resolution::Unanswered(outcome) => seen(outcome, own, &[]),
    }
}

/// What the agent's command line calls the kind of record.
pub(crate) const fn record_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "a",
        Family::V6 => "aaaa",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use udn_agent::protocol::{DnsAnswer, Resolvers};

    use super::*;

    #[test]
    fn the_domain_is_what_pods_search() {
        let search = |domains: &[&str]| {
            domain_of(&Resolvers { search: domains.iter().map(|it| (*it).into()).collect(), ..Resolvers::default() })
        };
        assert_eq!(search(&["blue.svc.corp.example", "svc.corp.example", "corp.example"]), "corp.example");
        assert_eq!(search(&["corp.example"]), "cluster.local");
    }

    #[test]
    fn answers_are_translated_in_one_order() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let resolved = |outcome| Resolved {
            outcome,
            server: None,
            local: Some("10.0.0.1:40000".parse().unwrap()),
            started_us: 0,
            took_us: 7,
            asked: 2,
        };
        let answer = DnsAnswer { addresses: ips(&["10.0.0.2", "10.0.0.1"]), ..DnsAnswer::default() };
        let expected = Outcome::Answered {
            rcode: Rcode::NoError,
            addresses: ips(&["10.0.0.1", "10.0.0.2"]),
            truncated: false,
            asked: 2,
            took_us: 7,
        };
        assert_eq!(outcome(resolved(Resolution::Answered(answer))), expected);
        let refused = protocol::Outcome::Refused { icmp: None };
        assert_eq!(outcome(resolved(Resolution::Unanswered(refused))), Outcome::Refused);
    }

    #[test]
    fn an_external_name_is_the_users_or_the_external_hosts() {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "annotations": { EXTERNAL_NAME: "external.lab.example" } } }))
                .unwrap();
        let host = NodeAddresses { addresses: vec!["172.18.0.100".parse().unwrap()], ..NodeAddresses::default() };
        let annotated = Dns::new(vec![], None, Some(&pod));
        assert_eq!(annotated.external(), Some("external.lab.example"));
        assert_eq!(annotated.meaning(Some(&host)), Some(host.addresses.clone()));
        assert_eq!(annotated.meaning(None), None);
        let said = Dns::new(host.addresses.clone(), Some("www.example.com"), Some(&pod));
        assert_eq!((said.external(), said.meaning(Some(&host))), (Some("www.example.com"), Some(vec![])));
        assert_eq!(said.features(), [Feature::ClusterDns, Feature::ExternalNameV4]);
        assert!(Dns::default().features().is_empty());
    }
}
