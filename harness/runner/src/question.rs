//! Turns a cell about a name into a question to the cluster's DNS service, and its expectation into addresses.

use std::net::IpAddr;

use udn_model::cell::{AddressOn, Cell, Expectation, Target, VantagePoint};
use udn_model::dns::{DNS_PORT, DnsName, dns_service};
use udn_model::words::{Family, Transport};

use crate::cluster::{AddressBook, Lookup, Over};
use crate::judge::Wanted;
use crate::resolve::{Resolved, address};

/// The question of a cell.
///
/// # Errors
/// The address that is not known (yet).
pub(crate) fn question(
    cell: &Cell,
    book: &AddressBook,
    from: &VantagePoint,
    name: &DnsName,
    (transport, family): (Transport, Family),
) -> Result<Resolved, String> {
    let wanted = match &cell.expectation {
        Expectation::Resolves { to } if *name == DnsName::External && to.is_empty() => {
            let known = book.external_name.as_ref().ok_or("the addresses of the external name are not known")?;
            let mut known: Vec<IpAddr> = known.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
            known.sort_unstable();
            Wanted::Addresses(known)
        }
        Expectation::Resolves { to } => Wanted::Addresses(meant(book, to, family)?),
        Expectation::NoSuchName => Wanted::NoSuchName,
        other => Wanted::of(other).ok_or_else(|| format!("a question cannot be expected to be {other}"))?,
    };
    Ok(Resolved {
        from: from.clone(),
        target: dns_service(),
        transport,
        family,
        to: server(book, family)?,
        port: Some(DNS_PORT),
        lookup: Some(Lookup::Question(name.clone(), family)),
        over: Over::New,
        wanted,
        reach: Vec::new(),
        witnesses: Vec::new(),
    })
}

/// The DNS service's address of a family; where it has none of that, the one that it has: it knows names of both.
pub(crate) fn server(book: &AddressBook, family: Family) -> Result<IpAddr, String> {
    let of_family = book.dns.iter().find(|ip| Family::of(**ip) == family);
    of_family.or(book.dns.first()).copied().ok_or_else(|| "the DNS service of the cluster has no ClusterIP".into())
}

/// Every address of the family that these have; each must have one.
fn meant(book: &AddressBook, to: &[Target], family: Family) -> Result<Vec<IpAddr>, String> {
    let mut all = Vec::new();
    for target in to {
        match target {
            // All of them, whichever the harness would probe.
            Target::Pod { pod, on: AddressOn::Default } if book.pods.contains_key(pod) => {
                let addresses = book.pods.get(pod).into_iter().flat_map(|pod| &pod.default);
                all.extend(addresses.copied().filter(|ip| Family::of(*ip) == family));
                address(book, target, family)?;
            }
            target => all.push(address(book, target, family)?),
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use udn_model::cell::{CellId, Check};
    use udn_model::rule::RuleName;
    use udn_model::world::PodRef;

    use super::*;
    use crate::cluster::PodAddresses;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn book() -> AddressBook {
        let mut book = AddressBook { dns: ips(&["10.96.0.10"]), ..AddressBook::default() };
        for (name, default, primary) in [("b", "10.244.0.6", "10.0.0.6"), ("a", "10.244.0.5", "10.0.0.5")] {
            let addresses =
                PodAddresses { default: ips(&[default]), primary: ips(&[primary]), ..PodAddresses::default() };
            book.pods.insert(PodRef::new("blue", name), addresses);
        }
        book
    }

    fn asked(expectation: Expectation, name: DnsName, family: Family) -> Result<Resolved, String> {
        let from = VantagePoint::Pod(PodRef::new("blue", "a"));
        let check =
            Check::Resolve { from: from.clone(), name: name.clone(), transport: Transport::Udp, family: Family::V4 };
        let cell = Cell {
            id: CellId("c".into()),
            suite: "s".into(),
            scenario: "s".into(),
            phase: "p".into(),
            rule: RuleName::new("services/dns"),
            check,
            expectation,
            topology: None,
            requires: vec![],
        };
        question(&cell, &book(), &from, &name, (Transport::Udp, family))
    }

    fn on_default(name: &str) -> Target {
        Target::Pod { pod: PodRef::new("blue", name), on: AddressOn::Default }
    }

    #[test]
    fn a_headless_service_means_default_network_addresses() {
        let to = vec![on_default("b"), on_default("a")];
        let resolved =
            asked(Expectation::Resolves { to }, DnsName::Alone(PodRef::new("blue", "a")), Family::V4).unwrap();
        assert_eq!(resolved.wanted, Wanted::Addresses(ips(&["10.244.0.5", "10.244.0.6"])));
        assert_eq!((resolved.to, resolved.port), (ips(&["10.96.0.10"])[0], Some(53)));
        let none = asked(Expectation::Resolves { to: vec![on_default("a")] }, DnsName::ApiServer, Family::V6);
        assert_eq!(none.unwrap_err(), "pod blue/a has no v6 address on its default network");
    }

    #[test]
    fn what_must_be_cut_is_closed_and_what_is_nobodys_is_said_so() {
        let cut = asked(Expectation::Closed, DnsName::ApiServer, Family::V6).unwrap();
        assert_eq!((cut.wanted, cut.to), (Wanted::Closed, ips(&["10.96.0.10"])[0]));
        let nobody = asked(Expectation::NoSuchName, DnsName::Nobody("blue".into()), Family::V4).unwrap();
        assert_eq!(nobody.wanted, Wanted::NoSuchName);
        let external = asked(Expectation::Resolves { to: vec![] }, DnsName::External, Family::V4);
        assert!(external.unwrap_err().contains("external name"));
    }
}
