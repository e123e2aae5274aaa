//! Positive controls: what shows, in the same round, that a vantage point can reach something and that a listener answers.

use std::collections::HashMap;

use udn_model::cell::{CellId, Target, VantagePoint};
use udn_model::rule::RuleName;
use udn_model::words::{Family, Transport};

use crate::judge::Wanted;
use crate::resolve::Resolved;

/// A listener: who, what it speaks, where.
type Listener = (Target, Transport, Option<u16>, Family);

/// The open cells of one round that matched, as controls of the others.
#[derive(Debug, Default)]
pub(crate) struct Controls<'a> {
    vantage: HashMap<(VantagePoint, Transport, Family), &'a CellId>,
    /// Who was told what a name means.
    answered: HashMap<(VantagePoint, Transport, Family), &'a CellId>,
    /// Pods that somebody else reached: what a policy lets send nothing can still answer, and that shows that it works.
    answers: HashMap<(VantagePoint, Transport, Family), &'a CellId>,
    listener: HashMap<Listener, &'a CellId>,
    /// The same, whichever of the pod's addresses was reached: its listeners listen on all of them.
    pod: HashMap<Listener, &'a CellId>,
}

/// The controls of one negative cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) vantage: CellId,
    /// None where the cell must be rejected, or a name not be there.
    pub(crate) listener: Option<CellId>,
}

impl<'a> Controls<'a> {
    /// Adds an open cell that matched.
    pub(crate) fn add(&mut self, id: &'a CellId, resolved: &'a Resolved) {
        if !resolved.is_to_itself() {
            let key = |point| (point, resolved.transport, resolved.family);
            self.vantage.entry(key(resolved.from.clone())).or_insert(id);
            if matches!(resolved.wanted, Wanted::Addresses(_)) {
                self.answered.entry(key(resolved.from.clone())).or_insert(id);
            }
            for reach in &resolved.reach {
                if let (Target::Pod { pod, .. }, Target::Pod { .. }) = (reach, &resolved.target) {
                    self.answers.entry(key(VantagePoint::Pod(pod.clone()))).or_insert(id);
                }
            }
        }
        let listener = |target| (target, resolved.transport, resolved.port, resolved.family);
        match &resolved.target {
            Target::Pod { .. } => {
                for reach in &resolved.reach {
                    self.listener.entry(listener(reach.clone())).or_insert(id);
                    self.pod.entry(listener(anywhere(reach))).or_insert(id);
                }
            }
            // Whoever answered, the address works.
            target => {
                self.listener.entry(listener(target.clone())).or_insert(id);
            }
        }
    }

    /// The controls of a negative cell of this rule.
    ///
    /// # Errors
    /// Which control is missing.
    pub(crate) fn find(&self, rule: &RuleName, resolved: &Resolved) -> Result<Found, String> {
        let wire = format!("{}/{}", resolved.transport, resolved.family);
        let key = (resolved.from.clone(), resolved.transport, resolved.family);
        if resolved.wanted == Wanted::NoSuchName {
            let found = self.answered.get(&key);
            let found =
                found.ok_or_else(|| format!("in the same round {} found no name over {wire}", resolved.from))?;
            // That there is none is an answer of its own.
            return Ok(Found { vantage: (*found).clone(), listener: None });
        }
        let answers = || self.answers.get(&key).filter(|_| rule.is_policy());
        let vantage = self.vantage.get(&key).or_else(answers);
        let vantage =
            vantage.ok_or_else(|| format!("in the same round {} reached nobody else over {wire}", resolved.from))?;
        let vantage = (*vantage).clone();
        // A rejection is an answer of its own: it needs nobody who listens.
        if resolved.wanted == Wanted::Rejected {
            return Ok(Found { vantage, listener: None });
        }
        let target = &resolved.target;
        let key = |target| (target, resolved.transport, resolved.port, resolved.family);
        let listener = self.listener.get(&key(target.clone())).or_else(|| self.pod.get(&key(anywhere(target))));
        let port = resolved.port.map_or_else(String::new, |port| format!(" port {port}"));
        let listener =
            listener.ok_or_else(|| format!("in the same round nobody reached {target}{port} over {wire}"))?;
        Ok(Found { vantage, listener: Some((*listener).clone()) })
    }
}

/// The target without its address: a stand-in that no real target equals.
fn anywhere(target: &Target) -> Target {
    match target {
        Target::Pod { pod, .. } => Target::Pod { pod: pod.clone(), on: udn_model::cell::AddressOn::Default },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use udn_model::cell::AddressOn;
    use udn_model::world::PodRef;

    use super::*;

    fn target(name: &str, on: AddressOn) -> Target {
        Target::Pod { pod: PodRef::new("ns", name), on }
    }

    fn resolved(from: &str, reach: Option<Target>, transport: Transport, port: Option<u16>) -> Resolved {
        Resolved {
            from: VantagePoint::Pod(PodRef::new("ns", from)),
            target: reach.clone().unwrap_or_else(|| target("victim", AddressOn::Primary)),
            transport,
            family: Family::V4,
            to: "10.0.0.1".parse().unwrap(),
            port,
            lookup: None,
            over: crate::cluster::Over::New,
            wanted: Wanted::Closed,
            reach: reach.into_iter().collect(),
            witnesses: Vec::new(),
        }
    }

    fn isolation() -> RuleName {
        RuleName::new("isolation/other-network-closed")
    }

    #[test]
    fn an_answer_is_a_control_where_a_policy_may_forbid_to_send_and_only_there() {
        let (one, two) = (CellId("1".into()), CellId("2".into()));
        let denied = resolved("a", None, Transport::Tcp, Some(8080));
        let mut controls = Controls::default();
        let listens = resolved("victim", Some(target("victim", AddressOn::Primary)), Transport::Tcp, Some(8080));
        controls.add(&one, &listens);
        let policy = RuleName::new("policy/deny-egress");
        assert!(controls.find(&policy, &denied).is_err(), "nobody reached it");
        let reached = resolved("b", Some(target("a", AddressOn::Primary)), Transport::Tcp, Some(9090));
        controls.add(&two, &reached);
        assert_eq!(
            controls.find(&policy, &denied).unwrap(),
            Found { vantage: two.clone(), listener: Some(one.clone()) }
        );
        assert!(controls.find(&isolation(), &denied).is_err(), "isolation needs the stricter one");
    }

    #[test]
    fn both_controls_are_needed() {
        use Transport::{Tcp, Udp};
        let denied = resolved("a", None, Tcp, Some(8080));
        let (one, two, three, four, five) =
            (CellId("1".into()), CellId("2".into()), CellId("3".into()), CellId("4".into()), CellId("5".into()));

        let mut controls = Controls::default();
        assert!(controls.find(&isolation(), &denied).unwrap_err().contains("ns.a reached nobody else over tcp/v4"));

        let itself = resolved("a", Some(target("a", AddressOn::Primary)), Tcp, Some(8080));
        controls.add(&one, &itself);
        assert!(controls.find(&isolation(), &denied).is_err(), "reaching itself says nothing of the way out");

        let other_transport = resolved("a", Some(target("b", AddressOn::Primary)), Udp, Some(8080));
        controls.add(&two, &other_transport);
        assert!(controls.find(&isolation(), &denied).is_err(), "udp says nothing of tcp");

        let way_out = resolved("a", Some(target("b", AddressOn::Primary)), Tcp, Some(9090));
        controls.add(&three, &way_out);
        assert!(
            controls.find(&isolation(), &denied).unwrap_err().contains("nobody reached ns.victim@primary port 8080")
        );

        let other_port = resolved("victim", Some(target("victim", AddressOn::Primary)), Tcp, Some(9090));
        controls.add(&four, &other_port);
        assert!(controls.find(&isolation(), &denied).is_err(), "another port is another listener");

        let listener = resolved("victim", Some(target("victim", AddressOn::Primary)), Tcp, Some(8080));
        controls.add(&five, &listener);
        assert_eq!(
            controls.find(&isolation(), &denied).unwrap(),
            Found { vantage: three.clone(), listener: Some(five) }
        );
    }

    #[test]
    fn that_there_is_no_such_name_is_worth_something_beside_a_name_that_is_there() {
        let (one, two) = (CellId("1".into()), CellId("2".into()));
        let asked = |from: &str, wanted| {
            let mut asked = resolved(from, None, Transport::Udp, Some(53));
            asked.target = udn_model::dns::dns_service();
            asked.wanted = wanted;
            asked
        };
        let dns = RuleName::new("services/dns");
        let nobody = asked("a", Wanted::NoSuchName);
        let mut controls = Controls::default();
        let plain = resolved("a", Some(target("b", AddressOn::Primary)), Transport::Udp, Some(8080));
        controls.add(&one, &plain);
        let elsewhere = asked("b", Wanted::Addresses(vec![]));
        controls.add(&two, &elsewhere);
        assert_eq!(controls.find(&dns, &nobody).unwrap_err(), "in the same round ns.a found no name over udp/v4");
        // What a policy cuts: somebody else is answered, and the vantage point reaches something else.
        let cut = asked("a", Wanted::Closed);
        let found = controls.find(&RuleName::new("policy/deny-egress"), &cut).unwrap();
        assert_eq!(found, Found { vantage: one.clone(), listener: Some(two.clone()) });
        let found = asked("a", Wanted::Addresses(vec![]));
        controls.add(&two, &found);
        assert_eq!(controls.find(&dns, &nobody).unwrap(), Found { vantage: two.clone(), listener: None });
    }

    #[test]
    fn the_same_listener_on_another_address_will_do() {
        let id = CellId("1".into());
        let entitled = resolved("b", Some(target("victim", AddressOn::Primary)), Transport::Tcp, Some(8080));
        let mut denied = resolved("b", None, Transport::Tcp, Some(8080));
        denied.target = target("victim", AddressOn::Default);
        let mut controls = Controls::default();
        controls.add(&id, &entitled);
        assert!(controls.find(&isolation(), &denied).is_ok());
        denied.target = target("another", AddressOn::Default);
        assert!(controls.find(&isolation(), &denied).is_err());
        // A rejection shows that somebody is there; a vantage point that works is still needed.
        denied.wanted = Wanted::Rejected;
        assert_eq!(controls.find(&isolation(), &denied).unwrap(), Found { vantage: id.clone(), listener: None });
        denied.from = VantagePoint::External;
        assert!(controls.find(&isolation(), &denied).is_err());
    }
}
