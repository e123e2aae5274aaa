//! Many connections of one cell: made in one round with all other probes, judged together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use udn_model::cell::{Cell, Check, Expectation, Reach};
use udn_model::flow::FlowKind;
use udn_model::observation::Outcome;
use udn_model::series::{Promise, Series};
use udn_model::world::World as Declared;

use crate::cluster::{AddressBook, Report};
use crate::resolve::{Resolved, resolve};
use crate::round::Planned;
use crate::window::OVERLOADED;

/// What is told of who accepts and does not say who he is within the timeout.
const SILENT: &str = "accepted without a word";

/// The connections of a cell, and how many of them; `None` where its check is something else.
///
/// # Errors
/// The address that is not known (yet).
pub(crate) fn asked(
    cell: &Cell,
    book: &AddressBook,
    declared: &Declared,
) -> Option<Result<(Resolved, Series), String>> {
    let Check::Series { from, to, placement, transport, port, family, series } = &cell.check else { return None };
    let (from, to, series) = (from.clone(), to.clone(), series.clone());
    let check = Check::Probe {
        from,
        to,
        placement: *placement,
        transport: *transport,
        port: *port,
        family: *family,
        flow: false,
        kind: FlowKind::Frames,
    };
    let expectation = Expectation::open(Reach::AnyOf(series.among.clone()));
    let one = Cell { check, expectation, ..cell.clone() };
    resolve(&one, book, declared).map(|resolved| resolved.map(|resolved| (resolved, series)))
}

/// The connections of one cell while they are made.
#[derive(Debug)]
pub(crate) struct Tally {
    series: Series,
    resolved: Arc<Resolved>,
    sent: u16,
    answered: u16,
    seen: HashSet<String>,
}

impl Tally {
    /// As many are on their way as are made at first.
    pub(crate) fn new(series: Series, resolved: Arc<Resolved>) -> Self {
        let sent = series.at_first();
        Self { series, resolved, sent, answered: 0, seen: HashSet::new() }
    }

    /// Takes what came of one. Returns how many more have to be made: all the rest, once all that were made have been
    /// answered and somebody is still missing.
    pub(crate) fn take(&mut self, outcome: &Outcome) -> Option<(u16, &Arc<Resolved>)> {
        self.answered += 1;
        if let Outcome::Open { peer: Some(peer), .. } = outcome {
            self.seen.insert(peer.clone());
        }
        let missing = self.series.among.iter().any(|backend| !self.seen.contains(&backend.to_string()));
        if self.answered < self.sent || self.sent >= self.series.connections || !missing {
            return None;
        }
        let rest = self.series.connections - self.sent;
        self.sent = self.series.connections;
        Some((rest, &self.resolved))
    }
}

/// Takes the reports of series out of a round's, and gives what each cell's amount to.
pub(crate) fn conclude(
    series: &HashMap<usize, Tally>,
    probes: &mut Vec<(Planned, Report)>,
    slowest: Duration,
) -> Vec<(usize, Outcome)> {
    if series.is_empty() {
        return Vec::new();
    }
    let mut reports: BTreeMap<usize, Vec<(Planned, Report)>> = BTreeMap::new();
    for (planned, report) in std::mem::take(probes) {
        if series.contains_key(&planned.cell) {
            reports.entry(planned.cell).or_default().push((planned, report));
        } else {
            probes.push((planned, report));
        }
    }
    let outcome = |(cell, reports): (usize, Vec<(Planned, Report)>)| {
        let to = reports.first().map(|(planned, _)| address(planned)).unwrap_or_default();
        let outcomes: Vec<&Outcome> = reports.iter().map(|(_, report)| &report.outcome).collect();
        Some((cell, together(&series.get(&cell)?.series, &to, &outcomes, slowest > OVERLOADED)))
    };
    reports.into_iter().filter_map(outcome).collect()
}

fn address(planned: &Planned) -> String {
    let to = planned.resolved.to;
    planned.resolved.port.map_or_else(|| to.to_string(), |port| std::net::SocketAddr::new(to, port).to_string())
}

/// What many outcomes amount to. Pure.
fn together(series: &Series, to: &str, outcomes: &[&Outcome], overloaded: bool) -> Outcome {
    if let Some(failed) = outcomes.iter().find(|outcome| outcome.is_harness_failure()) {
        return (*failed).clone();
    }
    let mut answers: BTreeMap<String, usize> = series.among.iter().map(|backend| (backend.to_string(), 0)).collect();
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Open { peer: Some(peer), .. } => *answers.entry(peer.clone()).or_default() += 1,
            Outcome::Open { peer: None, .. } => *others.entry(SILENT).or_default() += 1,
            other => *others.entry(other.word()).or_default() += 1,
        }
    }
    let strangers = answers.keys().any(|peer| !series.among.iter().any(|backend| backend.to_string() == *peer));
    let kept = match series.promise {
        Promise::Spread => answers.values().all(|count| *count > 0),
        Promise::Sticks => answers.values().filter(|count| **count > 0).count() == 1,
    };
    let holds = kept && !strangers && others.is_empty();
    let counts = answers.iter().map(|(peer, count)| format!("{count} by {peer}"));
    let lost = others.iter().map(|(word, count)| format!("{count} {word}"));
    let told = counts.chain(lost).collect::<Vec<_>>().join(", ");
    let found = format!("{} connections to {to}: {told}", outcomes.len());
    if overloaded && others.keys().any(|word| [Outcome::TimedOut.word(), Outcome::Reset.word(), SILENT].contains(word))
    {
        let why = format!("{found}; but answers were slow in the whole round: too much was asked of the machine");
        return Outcome::AgentFailed { why };
    }
    Outcome::Checked { holds, found }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use udn_model::world::PodRef;

    use super::*;

    /// `a`, `b`: answered by them, `s`: by a stranger, `t`: timed out, `l`: the control stream was lost.
    fn outcome(letter: char) -> Outcome {
        let open = |peer: &str| Outcome::Open { peer: Some(peer.into()), source: None, rtt_us: 9 };
        match letter {
            's' => open("green/a"),
            't' => Outcome::TimedOut,
            'l' => Outcome::ControlLost { why: "cut".into() },
            letter => open(&format!("blue/{letter}")),
        }
    }

    fn word(promise: Promise, script: &str, overloaded: bool) -> (&'static str, String) {
        let among = vec![PodRef::new("blue", "a"), PodRef::new("blue", "b")];
        let outcomes: Vec<Outcome> = script.chars().map(outcome).collect();
        let outcomes: Vec<&Outcome> = outcomes.iter().collect();
        let together = together(&Series::new(promise, among), "10.96.0.7:80", &outcomes, overloaded);
        (together.word(), together.to_string())
    }

    #[rstest]
    #[case::all("abba", "holds", "does-not-hold")]
    #[case::one_is_missing("aaaa", "does-not-hold", "holds")]
    #[case::a_stranger("abs", "does-not-hold", "does-not-hold")]
    #[case::a_stranger_only("ss", "does-not-hold", "does-not-hold")]
    #[case::lost("aat", "does-not-hold", "does-not-hold")]
    #[case::all_lost("tt", "does-not-hold", "does-not-hold")]
    #[case::blind("abl", "control-lost", "control-lost")]
    fn promises(#[case] script: &str, #[case] spread: &str, #[case] sticks: &str) {
        assert_eq!(word(Promise::Spread, script, false).0, spread);
        assert_eq!(word(Promise::Sticks, script, false).0, sticks);
    }

    #[test]
    fn more_are_made_only_where_somebody_is_missing() {
        let resolved = || {
            Arc::new(Resolved {
                from: udn_model::cell::VantagePoint::External,
                target: udn_model::cell::Target::External,
                transport: udn_model::words::Transport::Tcp,
                family: udn_model::words::Family::V4,
                to: "10.96.0.7".parse().unwrap(),
                port: Some(80),
                wanted: crate::judge::Wanted::Closed,
                reach: vec![],
                witnesses: vec![],
                lookup: None,
                over: crate::cluster::Over::New,
            })
        };
        let asked = |promise, script: &str| {
            let series = Series::new(promise, vec![PodRef::new("blue", "a"), PodRef::new("blue", "b")]);
            let mut tally = Tally::new(series, resolved());
            script.chars().filter_map(|letter| tally.take(&outcome(letter)).map(|(more, _)| more)).collect::<Vec<_>>()
        };
        assert!(asked(Promise::Spread, "aaaaaaab").is_empty());
        assert_eq!(asked(Promise::Spread, "aaaaaaat"), [23]);
        assert_eq!(asked(Promise::Spread, &"a".repeat(31)), [23]);
        assert!(asked(Promise::Sticks, &"a".repeat(31)).is_empty());
    }

    #[test]
    fn counts_are_told() {
        let told = word(Promise::Spread, "aaat", false).1;
        assert_eq!(told, "does not hold: 4 connections to 10.96.0.7:80: 3 by blue/a, 0 by blue/b, 1 timeout");
    }

    #[test]
    fn a_slow_machine_is_no_fault_of_the_network() {
        assert_eq!(word(Promise::Spread, "abt", true).0, "agent-failed");
        assert_eq!(word(Promise::Spread, "aaa", true).0, "does-not-hold");
    }
}
