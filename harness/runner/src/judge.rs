//! What one observation means for one cell. Pure.

use std::net::IpAddr;

use udn_model::cell::Expectation;
use udn_model::observation::{Outcome, Rcode, Witness};

/// What a cell wants, once addresses are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Somebody in particular must answer.
    Reach {
        /// The identities of those who may answer: `<namespace>/<pod>`, `node<slot>` or `external`; none: whoever does.
        peers: Vec<String>,
        /// Whether they say so themselves: listeners do, an echo reply does not.
        introduces: bool,
        /// The source addresses of which they must see one; none: whichever.
        seen_as: Vec<IpAddr>,
    },
    /// Nothing may get through, in whatever manner.
    Closed,
    /// Every attempt must time out.
    Dropped,
    /// Refused or reset.
    Rejected,
    /// A DNS server must give exactly these addresses, sorted; none: at least one, whichever.
    Addresses(Vec<IpAddr>),
    /// A DNS server must say that there is no such name.
    NoSuchName,
    /// A fact or claim must hold.
    Holds,
}

impl Wanted {
    /// What an expectation without an open question wants; `None` for [`Expectation::Open`] and
    /// [`Expectation::Resolves`], which need somebody.
    #[must_use]
    pub const fn of(expectation: &Expectation) -> Option<Self> {
        match expectation {
            Expectation::Open { .. } | Expectation::Resolves { .. } => None,
            Expectation::NoSuchName => Some(Self::NoSuchName),
            Expectation::Closed => Some(Self::Closed),
            Expectation::Dropped => Some(Self::Dropped),
            Expectation::Rejected => Some(Self::Rejected),
            Expectation::Holds => Some(Self::Holds),
        }
    }

    /// Whether nothing may get through, so that positive controls are needed.
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        matches!(self, Self::Closed | Self::Dropped | Self::Rejected)
    }

    /// Whether a match is worth something only with positive controls.
    #[must_use]
    pub const fn needs_controls(&self) -> bool {
        self.is_negative() || matches!(self, Self::NoSuchName)
    }
}

/// What the far side saw of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FarSide {
    /// Nobody was asked: nothing depends on it.
    NotAsked,
    /// The agent there could not be asked, or may have lost some: absence proves nothing.
    Unknown {
        /// Why.
        why: String,
    },
    /// It was asked.
    Seen {
        /// How it sees arrivals.
        witness: Witness,
        /// Whether this probe arrived.
        arrived: bool,
        /// The source address it arrived with, where it did.
        source: Option<IpAddr>,
    },
}

impl FarSide {
    /// Whether the probe is known to have arrived.
    #[must_use]
    pub const fn arrived(&self) -> bool {
        matches!(self, Self::Seen { arrived: true, .. })
    }

    /// Whether a capture saw everything and this was not in it.
    const fn surely_absent(&self) -> bool {
        matches!(self, Self::Seen { witness: Witness::RawCapture, arrived: false, .. })
    }

    /// How arrivals were seen, where they were.
    #[must_use]
    pub const fn witness(&self) -> Option<Witness> {
        match self {
            Self::Seen { witness, .. } => Some(*witness),
            Self::Unknown { .. } => Some(Witness::None),
            Self::NotAsked => None,
        }
    }
}

/// What one observation means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As expected. For a negative cell it counts only with positive controls in the same round.
    Match,
    /// Not as expected, though nothing forbidden got through.
    Mismatch(String),
    /// Something got through to somebody that must not.
    Violation(String),
    /// The harness could not tell.
    Harness(String),
}

/// Judges one observation.
#[must_use]
pub fn judge(wanted: &Wanted, outcome: &Outcome, far: &FarSide) -> Judged {
    if outcome.is_harness_failure() {
        return Judged::Harness(outcome.to_string());
    }
    if let Outcome::Checked { holds, found } = outcome {
        return match (wanted, holds) {
            (Wanted::Holds, true) => Judged::Match,
            (Wanted::Holds, false) => Judged::Mismatch(found.clone()),
            _ => Judged::Harness("a check was made where a probe was wanted".into()),
        };
    }
    match wanted {
        Wanted::Reach { peers, introduces, seen_as } => match reach(peers, *introduces, outcome, far) {
            Judged::Match if *introduces => seen(seen_as, outcome),
            judged => judged,
        },
        Wanted::Closed => closed(outcome, far),
        Wanted::Dropped => match closed(outcome, far) {
            Judged::Match if *outcome != Outcome::TimedOut => {
                Judged::Mismatch(format!("must be dropped, but is told: {outcome}"))
            }
            judged => judged,
        },
        Wanted::Rejected => rejected(outcome),
        Wanted::Addresses(addresses) => answered(addresses, outcome),
        Wanted::NoSuchName => match outcome {
            Outcome::Answered { rcode: Rcode::NoSuchName, .. } => Judged::Match,
            outcome => Judged::Mismatch(format!("must be told that there is no such name, but: {outcome}")),
        },
        Wanted::Holds => Judged::Harness("a probe was sent where a check was wanted".into()),
    }
}

/// Whether an answer may merely have come too late: then it is asked for once more before anything is said of it. A lone
/// timeout among many answers is noise wherever packets are forwarded by a busy machine.
#[must_use]
pub fn is_late(wanted: &Wanted, outcome: &Outcome) -> bool {
    match (wanted, outcome) {
        // A rejection is an answer, too, and one that a controller writes packet by packet.
        (Wanted::Reach { .. } | Wanted::Rejected, Outcome::TimedOut) => true,
        // Who sends its SYN again because the answer is late may be answered twice, and by two addresses.
        (Wanted::Reach { introduces, .. }, Outcome::Reset) => *introduces,
        // A server that accepts the connection and says nothing is late as well; one that garbles does so again.
        (Wanted::Addresses(_) | Wanted::NoSuchName, Outcome::TimedOut | Outcome::Garbled { .. }) => true,
        (Wanted::Reach { introduces, .. }, Outcome::Open { peer: None, .. }) => *introduces,
        _ => false,
    }
}

/// Whether an attempt may have been turned away by nobody's will: while flows are replaced, a packet may meet half of the
/// old ones and half of the new.
#[must_use]
pub const fn is_turned_away(wanted: &Wanted, outcome: &Outcome) -> bool {
    let turned_away = matches!(outcome, Outcome::Unreachable { .. } | Outcome::Refused | Outcome::NoRoute);
    turned_away && matches!(wanted, Wanted::Reach { .. } | Wanted::Addresses(_) | Wanted::NoSuchName)
}

fn reach(wanted: &[String], introduces: bool, outcome: &Outcome, far: &FarSide) -> Judged {
    let Outcome::Open { peer, .. } = outcome else {
        let arrived = if far.arrived() { "; the probe arrived at the target, so the answer was lost" } else { "" };
        return Judged::Mismatch(format!("not open: {outcome}{arrived}"));
    };
    let names = || wanted.join(" or ");
    match peer {
        _ if wanted.is_empty() => Judged::Match,
        Some(peer) if wanted.contains(peer) => Judged::Match,
        Some(peer) => Judged::Violation(format!("wrong peer: answered by {peer}, not by {}", names())),
        None if introduces => {
            Judged::Mismatch(format!("accepted, but nobody said within the timeout that he is {}", names()))
        }
        // An echo reply carries no identity: only the capture at the right pod can tell that it was he who answered.
        None if far.surely_absent() => {
            Judged::Violation(format!("wrong peer: somebody answered, but nothing arrived at {}", names()))
        }
        None => Judged::Match,
    }
}

/// Whether a name means these addresses.
fn answered(wanted: &[IpAddr], outcome: &Outcome) -> Judged {
    let Outcome::Answered { rcode, addresses, truncated, .. } = outcome else {
        return Judged::Mismatch(format!("not answered: {outcome}"));
    };
    let right = if wanted.is_empty() { !addresses.is_empty() } else { wanted == addresses };
    if *rcode == Rcode::NoError && !truncated && right {
        return Judged::Match;
    }
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let wanted = if wanted.is_empty() { "an address".into() } else { wanted.join(", ") };
    Judged::Mismatch(format!("must resolve to {wanted}, but: {outcome}"))
}

/// Whether the peer saw one of these source addresses.
fn seen(wanted: &[IpAddr], outcome: &Outcome) -> Judged {
    let Outcome::Open { source, .. } = outcome else { return Judged::Match };
    match source {
        _ if wanted.is_empty() => Judged::Match,
        Some(source) if wanted.contains(source) => Judged::Match,
        source => {
            let found = source.map_or_else(|| "did not say what it saw".into(), |source| format!("saw {source}"));
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            Judged::Mismatch(format!("wrong source address: the peer {found}, not {}", wanted.join(" or ")))
        }
    }
}

fn closed(outcome: &Outcome, far: &FarSide) -> Judged {
    if let Outcome::Open { peer, .. } = outcome {
        let who = peer.as_deref().unwrap_or("somebody");
        return Judged::Violation(format!("open: answered by {who}"));
    }
    if matches!(outcome, Outcome::Answered { .. } | Outcome::Garbled { .. }) {
        return Judged::Violation(format!("open: a DNS server was reached: {outcome}"));
    }
    match far {
        FarSide::Seen { arrived: true, source, .. } => {
            let source = source.map(|source| format!(" from {source}")).unwrap_or_default();
            Judged::Violation(format!(
                "one-way leak: the probe arrived at the target{source}, though its sender saw: {outcome}"
            ))
        }
        FarSide::Unknown { why } => Judged::Harness(format!("arrivals at the target are not known: {why}")),
        FarSide::Seen { .. } | FarSide::NotAsked => Judged::Match,
    }
}

fn rejected(outcome: &Outcome) -> Judged {
    match outcome {
        Outcome::Open { peer, .. } => {
            Judged::Violation(format!("open: answered by {}", peer.as_deref().unwrap_or("somebody")))
        }
        // No rule names another ICMP than port-unreachable, which is a refusal: "host unreachable" says that nobody is there
        // to reject anything.
        Outcome::Refused | Outcome::Reset => Judged::Match,
        other => Judged::Mismatch(format!("must be rejected, but: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn open(peer: Option<&str>) -> Outcome {
        Outcome::Open { peer: peer.map(str::to_owned), source: None, rtt_us: 200 }
    }

    fn unreachable(by: Option<&str>) -> Outcome {
        Outcome::Unreachable { why: "host unreachable".into(), by: by.map(|by| by.parse().unwrap()) }
    }

    fn reaching_blue_a(introduces: bool) -> Wanted {
        Wanted::Reach { peers: vec!["blue/a".into()], introduces, seen_as: vec![] }
    }

    #[rstest]
    #[case::right(Some("172.18.0.3"), "match")]
    #[case::wrong(Some("10.0.0.5"), "mismatch")]
    #[case::untold(None, "mismatch")]
    fn source_addresses(#[case] source: Option<&str>, #[case] expected: &str) {
        let outcome = Outcome::Open {
            peer: Some("external".into()),
            source: source.map(|source| source.parse().unwrap()),
            rtt_us: 200,
        };
        let seen_as = vec!["172.18.0.3".parse().unwrap()];
        let wanted = Wanted::Reach { peers: vec!["external".into()], introduces: true, seen_as };
        assert_eq!(word(&judge(&wanted, &outcome, &FarSide::NotAsked)), expected);
    }

    #[test]
    fn any_backend_will_do_but_no_stranger() {
        let peers = vec!["blue/a".into(), "blue/b".into()];
        let wanted = Wanted::Reach { peers, introduces: true, seen_as: vec![] };
        assert_eq!(word(&judge(&wanted, &open(Some("blue/b")), &FarSide::NotAsked)), "match");
        assert_eq!(word(&judge(&wanted, &open(Some("blue/c")), &FarSide::NotAsked)), "violation");
    }

    const QUIET: FarSide = FarSide::Seen { witness: Witness::RawCapture, arrived: false, source: None };
    const ARRIVED: FarSide = FarSide::Seen { witness: Witness::RawCapture, arrived: true, source: None };
    const COUNTER: FarSide = FarSide::Seen { witness: Witness::ListenerCounter, arrived: false, source: None };

    fn word(judged: &Judged) -> &'static str {
        match judged {
            Judged::Match => "match",
            Judged::Mismatch(_) => "mismatch",
            Judged::Violation(_) => "violation",
            Judged::Harness(_) => "harness",
        }
    }

    #[rstest]
    #[case::right_peer(open(Some("blue/a")), FarSide::NotAsked, "match")]
    #[case::wrong_peer(open(Some("green/a")), FarSide::NotAsked, "violation")]
    #[case::another_run(open(Some("other-run/w/blue/a")), FarSide::NotAsked, "violation")]
    #[case::silent(open(None), FarSide::NotAsked, "mismatch")]
    #[case::timeout(Outcome::TimedOut, FarSide::NotAsked, "mismatch")]
    #[case::refused(Outcome::Refused, FarSide::NotAsked, "mismatch")]
    #[case::no_route(Outcome::NoRoute, FarSide::NotAsked, "mismatch")]
    #[case::unresolved(Outcome::Unresolved { why: "no address".into() }, FarSide::NotAsked, "harness")]
    #[case::agent(Outcome::AgentFailed { why: "EMFILE".into() }, FarSide::NotAsked, "harness")]
    #[case::lost(Outcome::ControlLost { why: "cut".into() }, FarSide::NotAsked, "harness")]
    fn reaching(#[case] outcome: Outcome, #[case] far: FarSide, #[case] expected: &str) {
        let wanted = reaching_blue_a(true);
        assert_eq!(word(&judge(&wanted, &outcome, &far)), expected);
    }

    #[rstest]
    #[case::arrived(open(None), ARRIVED, "match")]
    #[case::answered_by_another(open(None), QUIET, "violation")]
    #[case::no_capture(open(None), COUNTER, "match")]
    #[case::not_watched(open(None), FarSide::NotAsked, "match")]
    #[case::capture_lossy(open(None), FarSide::Unknown { why: "x".into() }, "match")]
    #[case::timeout(Outcome::TimedOut, ARRIVED, "mismatch")]
    fn reaching_by_echo(#[case] outcome: Outcome, #[case] far: FarSide, #[case] expected: &str) {
        let wanted = reaching_blue_a(false);
        assert_eq!(word(&judge(&wanted, &outcome, &far)), expected);
    }

    #[rstest]
    #[case::timeout(Outcome::TimedOut, QUIET, "match", "match", "mismatch")]
    #[case::refused(Outcome::Refused, QUIET, "match", "mismatch", "match")]
    #[case::reset(Outcome::Reset, QUIET, "match", "mismatch", "match")]
    #[case::router_says(unreachable(Some("10.0.0.1")), QUIET, "match", "mismatch", "mismatch")]
    #[case::own_kernel(unreachable(None), QUIET, "match", "mismatch", "mismatch")]
    #[case::no_route(Outcome::NoRoute, QUIET, "match", "mismatch", "mismatch")]
    #[case::open(open(Some("blue/a")), ARRIVED, "violation", "violation", "violation")]
    #[case::open_by_another(open(Some("green/a")), QUIET, "violation", "violation", "violation")]
    #[case::open_by_nobody(open(None), QUIET, "violation", "violation", "violation")]
    #[case::one_way_leak(Outcome::TimedOut, ARRIVED, "violation", "violation", "mismatch")]
    #[case::refused_by_target(Outcome::Refused, ARRIVED, "violation", "violation", "match")]
    #[case::capture_lossy(Outcome::TimedOut, FarSide::Unknown { why: "x".into() }, "harness", "harness", "mismatch")]
    #[case::counter_only(Outcome::TimedOut, COUNTER, "match", "match", "mismatch")]
    #[case::lost(Outcome::ControlLost { why: "cut".into() }, QUIET, "harness", "harness", "harness")]
    #[case::agent(Outcome::AgentFailed { why: "x".into() }, ARRIVED, "harness", "harness", "harness")]
    fn keeping_out(
        #[case] outcome: Outcome,
        #[case] far: FarSide,
        #[case] closed: &str,
        #[case] dropped: &str,
        #[case] rejected: &str,
    ) {
        assert_eq!(word(&judge(&Wanted::Closed, &outcome, &far)), closed);
        assert_eq!(word(&judge(&Wanted::Dropped, &outcome, &far)), dropped);
        assert_eq!(word(&judge(&Wanted::Rejected, &outcome, &far)), rejected);
    }

    #[rstest]
    #[case(Outcome::TimedOut, true, true)]
    #[case(open(None), true, false)]
    #[case(open(Some("blue/a")), false, false)]
    #[case(Outcome::Refused, false, false)]
    #[case(Outcome::ControlLost { why: "cut".into() }, false, false)]
    fn what_may_be_late(#[case] outcome: Outcome, #[case] of_a_listener: bool, #[case] of_an_echo: bool) {
        let reach = reaching_blue_a;
        assert_eq!(is_late(&reach(true), &outcome), of_a_listener);
        assert_eq!(is_late(&reach(false), &outcome), of_an_echo);
        assert!(!is_late(&Wanted::Closed, &outcome));
        assert_eq!(is_late(&Wanted::Rejected, &outcome), outcome == Outcome::TimedOut);
    }

    fn dns(rcode: Rcode, addresses: &[&str]) -> Outcome {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Outcome::Answered { rcode, addresses, truncated: false, asked: 1, took_us: 100 }
    }

    #[rstest]
    #[case::as_wanted(dns(Rcode::NoError, &["10.0.0.1", "10.0.0.2"]), "match", "match", "mismatch", "violation")]
    #[case::one_of_two(dns(Rcode::NoError, &["10.0.0.1"]), "mismatch", "match", "mismatch", "violation")]
    #[case::one_more(dns(Rcode::NoError, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]), "mismatch", "match", "mismatch", "violation")]
    #[case::none(dns(Rcode::NoError, &[]), "mismatch", "mismatch", "mismatch", "violation")]
    #[case::no_such_name(dns(Rcode::NoSuchName, &[]), "mismatch", "mismatch", "match", "violation")]
    #[case::refused(dns(Rcode::Refused, &[]), "mismatch", "mismatch", "mismatch", "violation")]
    #[case::garbled(Outcome::Garbled { why: "x".into() }, "mismatch", "mismatch", "mismatch", "violation")]
    #[case::silence(Outcome::TimedOut, "mismatch", "mismatch", "mismatch", "match")]
    #[case::no_agent(Outcome::ControlLost { why: "cut".into() }, "harness", "harness", "harness", "harness")]
    fn names(
        #[case] outcome: Outcome,
        #[case] exactly: &str,
        #[case] any: &str,
        #[case] nobody: &str,
        #[case] closed: &str,
    ) {
        let two = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
        for (wanted, expected) in [
            (Wanted::Addresses(two), exactly),
            (Wanted::Addresses(vec![]), any),
            (Wanted::NoSuchName, nobody),
            (Wanted::Closed, closed),
        ] {
            assert_eq!(word(&judge(&wanted, &outcome, &FarSide::NotAsked)), expected, "{wanted:?}");
        }
    }

    #[test]
    fn an_answer_that_was_cut_short_is_no_answer() {
        let Outcome::Answered { rcode, addresses, asked, took_us, .. } = dns(Rcode::NoError, &["10.0.0.1"]) else {
            panic!()
        };
        let wanted = Wanted::Addresses(addresses.clone());
        let cut = Outcome::Answered { rcode, addresses, truncated: true, asked, took_us };
        assert_eq!(word(&judge(&wanted, &cut, &FarSide::NotAsked)), "mismatch");
        assert!(is_late(&wanted, &Outcome::TimedOut) && is_late(&Wanted::NoSuchName, &Outcome::TimedOut));
        assert!(is_late(&wanted, &Outcome::Garbled { why: "x".into() }) && !is_late(&wanted, &cut));
    }

    #[test]
    fn checks_hold_or_do_not() {
        let checked = |holds| Outcome::Checked { holds, found: "it".into() };
        assert_eq!(judge(&Wanted::Holds, &checked(true), &FarSide::NotAsked), Judged::Match);
        assert_eq!(judge(&Wanted::Holds, &checked(false), &FarSide::NotAsked), Judged::Mismatch("it".into()));
        assert_eq!(word(&judge(&Wanted::Closed, &checked(true), &FarSide::NotAsked)), "harness");
        assert_eq!(word(&judge(&Wanted::Holds, &Outcome::TimedOut, &FarSide::NotAsked)), "harness");
    }

    #[test]
    fn a_leak_says_what_happened_on_both_sides() {
        let far =
            FarSide::Seen { witness: Witness::RawCapture, arrived: true, source: Some("10.0.0.9".parse().unwrap()) };
        let Judged::Violation(text) = judge(&Wanted::Closed, &Outcome::TimedOut, &far) else { panic!("no violation") };
        assert_eq!(
            text,
            "one-way leak: the probe arrived at the target from 10.0.0.9, though its sender saw: timed out"
        );
    }
}
