//! What all observations of a cell add up to. Pure.

use udn_model::observation::{Attempt, Outcome};
use udn_model::verdict::Verdict;

use crate::judge::Judged;

/// Rounds without an answer after which none is waited for.
const DOUBTED: u32 = 2;
/// Times that a verdict's reason lists at most.
const TIMES_TOLD: usize = 5;

/// One judged observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When the probe was sent, milliseconds since the phase's actions were done; negative while they ran.
    pub at_ms: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was seen arriving at the target.
    pub arrived: bool,
    /// What it means.
    pub meaning: Meaning,
}

/// What an observation means once the round's controls are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// As [`Judged`].
    Judged(Judged),
    /// As expected of a negative cell, but worth nothing: a positive control is missing.
    Uncontrolled(String),
}

/// All observations of one cell in one phase.
#[derive(Clone, Debug)]
pub struct History {
    /// Consecutive matches that make it settled.
    rounds: u32,
    /// Whether an isolation rule forbids the connection: one success counts for ever.
    forbidden: bool,
    /// Whether the cell exists only as a control of others.
    control: bool,
    /// Whether it must match from the first round on.
    strict: bool,
    /// Whether it may fail to match for a while, whenever: how long is judged by other means.
    tolerant: bool,
    attempts: Vec<Attempt>,
    streak: u32,
    streak_since_ms: i64,
    /// Rounds to the last one in which an answer was wanted and none came.
    silent: u32,
    settled_once: bool,
    observed: u32,
    matched: u32,
    violations: Vec<(i64, String)>,
    flaps: Vec<(i64, String)>,
    last_trouble: Option<Meaning>,
}

/// Why a phase ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every cell settled and held, or the deadline passed after this many milliseconds.
    Done {
        /// The settle deadline, milliseconds.
        deadline_ms: u64,
    },
    /// The run was interrupted or its deadline passed: nothing is judged that had not settled and held.
    CutShort {
        /// Why.
        why: String,
    },
}

/// The end of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in one line; empty for a pass.
    pub reason: String,
    /// When the matches to the end began, where they were enough.
    pub settled_ms: Option<u64>,
}

impl History {
    /// Nothing observed yet.
    #[must_use]
    pub const fn new(rounds: u32, forbidden: bool, control: bool) -> Self {
        Self {
            rounds,
            forbidden,
            control,
            strict: false,
            tolerant: false,
            attempts: Vec::new(),
            streak: 0,
            streak_since_ms: 0,
            silent: 0,
            settled_once: false,
            observed: 0,
            matched: 0,
            violations: Vec::new(),
            flaps: Vec::new(),
            last_trouble: None,
        }
    }

    /// Must match from the first round on: nothing is allowed for settling.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// May fail to match for a while: a flow whose outages are measured has to be there in the end.
    #[must_use]
    pub fn tolerant(self) -> Self {
        Self { strict: false, tolerant: true, ..self }
    }

    /// An observation made while the phase's actions ran. Only what got through means something: the endpoints were
    /// just coming up.
    pub fn watched(&mut self, observation: Observation) {
        if let Meaning::Judged(Judged::Violation(why)) = &observation.meaning {
            self.violations.push((observation.at_ms, why.clone()));
        }
        self.record(observation);
    }

    /// An outcome that was asked for once more in the same round: recorded, not judged.
    pub fn note(&mut self, at_ms: i64, outcome: Outcome) {
        self.record(Observation { at_ms, outcome, arrived: false, meaning: Meaning::Judged(Judged::Match) });
    }

    /// An observation of a round. Returns whether it matched.
    pub fn observe(&mut self, observation: Observation) -> bool {
        self.observed += 1;
        let at_ms = observation.at_ms;
        let meaning = observation.meaning.clone();
        let silent = observation.outcome == Outcome::TimedOut;
        self.record(observation);
        let matched = meaning == Meaning::Judged(Judged::Match);
        self.silent = if silent && !matched { self.silent + 1 } else { 0 };
        if matched {
            if self.streak == 0 {
                self.streak_since_ms = at_ms;
            }
            self.streak += 1;
            self.matched += 1;
            self.settled_once |= self.is_settled();
            return true;
        }
        let excused = self.tolerant && matches!(&meaning, Meaning::Judged(Judged::Mismatch(_)));
        if let Meaning::Judged(Judged::Mismatch(why) | Judged::Violation(why)) = &meaning
            && (self.settled_once || self.strict)
            && !excused
        {
            self.flaps.push((at_ms, why.clone()));
        }
        if let Meaning::Judged(Judged::Violation(why)) = &meaning {
            self.violations.push((at_ms, why.clone()));
        }
        self.streak = 0;
        self.last_trouble = Some(meaning);
        false
    }

    fn record(&mut self, observation: Observation) {
        let arrived = u32::from(observation.arrived);
        if let Some(last) = self.attempts.last_mut()
            && last.outcome.same_as(&observation.outcome)
            && (last.arrived > 0) == observation.arrived
            // What was seen while the actions ran stays apart from what was seen after.
            && (last.last_ms < 0) == (observation.at_ms < 0)
        {
            last.last_ms = observation.at_ms;
            last.count += 1;
            last.arrived += arrived;
            last.outcome = observation.outcome;
            return;
        }
        let at = observation.at_ms;
        self.attempts.push(Attempt { first_ms: at, last_ms: at, count: 1, outcome: observation.outcome, arrived });
    }

    /// Whether its last observations matched, enough of them.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.streak >= self.rounds
    }

    /// Whether it was to be answered and has been silent for so long that nobody need wait for its answer: it is asked all the
    /// same.
    #[must_use]
    pub const fn is_doubted(&self) -> bool {
        self.silent >= DOUBTED
    }

    /// When the matches to the end began, milliseconds since the phase's actions were done; `None` where it has not
    /// settled.
    #[must_use]
    pub fn settled_ms(&self) -> Option<u64> {
        self.is_settled().then(|| u64::try_from(self.streak_since_ms).unwrap_or_default())
    }

    /// Whether any observation of a round ended so.
    #[must_use]
    pub fn ever(&self, outcome: &Outcome) -> bool {
        self.attempts.iter().any(|attempt| attempt.last_ms >= 0 && attempt.outcome.same_as(outcome))
    }

    /// Adds a violation that was only understood later.
    pub fn violated(&mut self, at_ms: i64, why: String) {
        self.violations.push((at_ms, why));
        self.violations.sort_by_key(|(at_ms, _)| *at_ms);
    }

    /// What was observed, in order.
    #[must_use]
    pub fn into_attempts(self) -> Vec<Attempt> {
        self.attempts
    }

    /// What was observed so far, in order.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The verdict.
    #[must_use]
    pub fn conclude(&self, ending: &Ending) -> Conclusion {
        if let Ending::CutShort { why } = ending {
            return conclusion(Verdict::Error, format!("not judged: {why}"));
        }
        let Ending::Done { deadline_ms } = ending else { return conclusion(Verdict::Error, "not judged".into()) };
        if self.observed == 0 {
            return conclusion(Verdict::Error, "never observed".into());
        }
        if !self.is_settled() {
            return self.unsettled(*deadline_ms);
        }
        let settled_ms = self.settled_ms();
        if self.forbidden && !self.violations.is_empty() {
            let reason = format!("a window: {}", tell(&self.violations));
            return Conclusion { verdict: Verdict::Unstable, reason, settled_ms };
        }
        if !self.flaps.is_empty() {
            let when = if self.strict { "not throughout" } else { "had settled, then" };
            let reason = format!("{when}: {}", tell(&self.flaps));
            return Conclusion { verdict: Verdict::Unstable, reason, settled_ms };
        }
        Conclusion { verdict: Verdict::Pass, reason: String::new(), settled_ms }
    }

    fn unsettled(&self, deadline_ms: u64) -> Conclusion {
        let seconds = deadline_ms / 1000;
        let tally = format!("matched in {} of {} rounds", self.matched, self.observed);
        let Some(last) = &self.last_trouble else {
            // Every observation matched, but there were too few.
            return conclusion(Verdict::Error, format!("only {} rounds in {seconds} s", self.observed));
        };
        let (verdict, why) = match last {
            Meaning::Judged(Judged::Mismatch(why) | Judged::Violation(why)) => (Verdict::Fail, why.clone()),
            Meaning::Judged(Judged::Harness(why)) => (Verdict::Error, why.clone()),
            Meaning::Uncontrolled(why) => (Verdict::Error, format!("no control: {why}")),
            Meaning::Judged(Judged::Match) => (Verdict::Error, String::new()),
        };
        // A cell that somebody got through stays a failure although the harness lost its tools in the end.
        if verdict == Verdict::Error
            && self.forbidden
            && let Some((at_ms, violation)) = self.violations.last()
        {
            return conclusion(Verdict::Fail, format!("{violation} (at {at_ms} ms); then {why}"));
        }
        let why = if self.matched > 0 { format!("{why}; {tally}, never settled within {seconds} s") } else { why };
        if self.control && verdict == Verdict::Fail {
            return conclusion(Verdict::Error, format!("the control does not work: {why}"));
        }
        conclusion(verdict, why)
    }
}

const fn conclusion(verdict: Verdict, reason: String) -> Conclusion {
    Conclusion { verdict, reason, settled_ms: None }
}

fn tell(events: &[(i64, String)]) -> String {
    let Some((_, first)) = events.first() else { return String::new() };
    let times: Vec<String> = events.iter().take(TIMES_TOLD).map(|(at_ms, _)| format!("{at_ms}")).collect();
    let more =
        if events.len() > TIMES_TOLD { format!(" and {} more", events.len() - TIMES_TOLD) } else { String::new() };
    format!("{first} (at {} ms{more})", times.join(", "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DONE: Ending = Ending::Done { deadline_ms: 30_000 };

    /// `m` match, `x` mismatch, `v` violation, `h` harness, `u` uncontrolled; one a second.
    fn history(script: &str, forbidden: bool, control: bool) -> History {
        let mut history = History::new(3, forbidden, control);
        for (n, letter) in script.chars().enumerate() {
            let (outcome, meaning) = match letter {
                'm' => (Outcome::TimedOut, Meaning::Judged(Judged::Match)),
                'x' => (Outcome::Refused, Meaning::Judged(Judged::Mismatch("mismatch".into()))),
                'v' => (
                    Outcome::Open { peer: None, source: None, rtt_us: 1 },
                    Meaning::Judged(Judged::Violation("open".into())),
                ),
                'h' => (
                    Outcome::ControlLost { why: "cut".into() },
                    Meaning::Judged(Judged::Harness("control stream lost: cut".into())),
                ),
                'u' => (Outcome::TimedOut, Meaning::Uncontrolled("nobody reached it".into())),
                other => panic!("{other}"),
            };
            let at_ms = i64::try_from(n).unwrap() * 1000;
            history.observe(Observation { at_ms, outcome, arrived: false, meaning });
        }
        history
    }

    #[rstest]
    #[case::steady("mmmm", Verdict::Pass, Some(0))]
    #[case::just_enough("mmm", Verdict::Pass, Some(0))]
    #[case::settles_late("xxmmmm", Verdict::Pass, Some(2000))]
    #[case::first_match_then_not_then_settles("mxmmm", Verdict::Pass, Some(2000))]
    #[case::flap("mmmxmmm", Verdict::Unstable, Some(4000))]
    #[case::never("xxxx", Verdict::Fail, None)]
    #[case::breaks_in_the_hold("mmmx", Verdict::Fail, None)]
    #[case::never_steady("mmxmmxmm", Verdict::Fail, None)]
    #[case::too_few("mm", Verdict::Error, None)]
    #[case::nothing("", Verdict::Error, None)]
    #[case::harness("hhhh", Verdict::Error, None)]
    #[case::harness_recovers("mmmhmmm", Verdict::Pass, Some(4000))]
    #[case::harness_at_the_end("mmmh", Verdict::Error, None)]
    #[case::no_control("uuuu", Verdict::Error, None)]
    #[case::control_comes("uummm", Verdict::Pass, Some(2000))]
    #[case::control_goes_and_comes("mmmummm", Verdict::Pass, Some(4000))]
    #[case::no_violation_is_forgotten("vmmm", Verdict::Unstable, Some(1000))]
    #[case::violation_later("mmmvmmm", Verdict::Unstable, Some(4000))]
    #[case::open_to_the_end("vvvv", Verdict::Fail, None)]
    #[case::violation_then_blind("vhhh", Verdict::Fail, None)]
    #[case::violation_then_uncontrolled("vuuu", Verdict::Fail, None)]
    fn forbidden_cells(#[case] script: &str, #[case] verdict: Verdict, #[case] settled_ms: Option<u64>) {
        let conclusion = history(script, true, false).conclude(&DONE);
        assert_eq!((conclusion.verdict, conclusion.settled_ms), (verdict, settled_ms), "{}", conclusion.reason);
        assert_eq!(conclusion.reason.is_empty(), verdict == Verdict::Pass);
    }

    #[rstest]
    #[case::may_be_open_before_it_settles("vmmm", Verdict::Pass)]
    #[case::flap("mmmvmmm", Verdict::Unstable)]
    #[case::violation_then_blind("vhhh", Verdict::Error)]
    fn cells_of_other_rules(#[case] script: &str, #[case] verdict: Verdict) {
        assert_eq!(history(script, false, false).conclude(&DONE).verdict, verdict);
    }

    #[rstest]
    #[case::out_for_a_while("mmmxxmmm", Verdict::Pass)]
    #[case::never_again("mmmxxx", Verdict::Fail)]
    #[case::wrong_peer_for_a_while("mmmvmmm", Verdict::Unstable)]
    fn flows_that_are_measured_may_be_out(#[case] script: &str, #[case] verdict: Verdict) {
        let tolerant = history(script, false, false);
        let mut replayed = History::new(3, false, false).tolerant();
        for attempt in tolerant.attempts() {
            for _ in 0..attempt.count {
                let judged = match attempt.outcome {
                    Outcome::TimedOut => Judged::Match,
                    Outcome::Refused => Judged::Mismatch("mismatch".into()),
                    _ => Judged::Violation("open".into()),
                };
                let meaning = Meaning::Judged(judged);
                let (at_ms, outcome) = (attempt.first_ms, attempt.outcome.clone());
                replayed.observe(Observation { at_ms, outcome, arrived: false, meaning });
            }
        }
        assert_eq!(replayed.conclude(&DONE).verdict, verdict);
    }

    #[rstest]
    #[case::works("mmm", Verdict::Pass)]
    #[case::does_not("xxx", Verdict::Error)]
    #[case::wrong_peer("vvv", Verdict::Error)]
    fn controls_never_fail_the_network(#[case] script: &str, #[case] verdict: Verdict) {
        assert_eq!(history(script, false, true).conclude(&DONE).verdict, verdict);
    }

    #[rstest]
    #[case("mmmm")]
    #[case("xx")]
    #[case("")]
    fn cut_short_is_never_judged(#[case] script: &str) {
        let conclusion = history(script, true, false).conclude(&Ending::CutShort { why: "interrupted".into() });
        assert_eq!(conclusion.verdict, Verdict::Error);
        assert_eq!(conclusion.reason, "not judged: interrupted");
    }

    #[test]
    fn reasons_name_times() {
        assert_eq!(history("vvmmm", true, false).conclude(&DONE).reason, "a window: open (at 0, 1000 ms)");
        assert_eq!(history("mmmxmmm", true, false).conclude(&DONE).reason, "had settled, then: mismatch (at 3000 ms)");
        assert_eq!(
            history("mx", true, false).conclude(&DONE).reason,
            "mismatch; matched in 1 of 2 rounds, never settled within 30 s"
        );
        assert_eq!(history("u", true, false).conclude(&DONE).reason, "no control: nobody reached it");
    }

    #[test]
    fn equal_attempts_collapse() {
        let history = history("mmxmm", false, false);
        let attempts: Vec<_> = history.attempts().iter().map(|a| (a.first_ms, a.last_ms, a.count)).collect();
        assert_eq!(attempts, [(0, 1000, 2), (2000, 2000, 1), (3000, 4000, 2)]);
    }

    #[rstest]
    #[case::once("mt", false)]
    #[case::twice("mtt", true)]
    #[case::answered_since("ttm", false)]
    #[case::silence_as_wanted("mmm", false)]
    fn who_is_silent_is_doubted(#[case] script: &str, #[case] doubted: bool) {
        let mut history = History::new(3, false, false);
        for letter in script.chars() {
            let (outcome, judged) = match letter {
                't' => (Outcome::TimedOut, Judged::Mismatch("not open".into())),
                _ => (Outcome::TimedOut, Judged::Match),
            };
            history.observe(Observation { at_ms: 0, outcome, arrived: false, meaning: Meaning::Judged(judged) });
        }
        assert_eq!(history.is_doubted(), doubted);
    }

    #[test]
    fn what_was_watched_counts_only_when_it_got_through() {
        let mut history = History::new(3, true, false);
        let at =
            |at_ms, outcome, judged| Observation { at_ms, outcome, arrived: false, meaning: Meaning::Judged(judged) };
        history.watched(at(-300, Outcome::TimedOut, Judged::Match));
        for n in 0..3 {
            history.observe(at(n, Outcome::TimedOut, Judged::Match));
        }
        assert_eq!(history.conclude(&DONE).verdict, Verdict::Pass);
        assert_eq!(history.attempts().len(), 2, "before and after stay apart");
        history.watched(at(
            -200,
            Outcome::Open { peer: None, source: None, rtt_us: 1 },
            Judged::Violation("open".into()),
        ));
        let conclusion = history.conclude(&DONE);
        assert_eq!(
            (conclusion.verdict, conclusion.reason.as_str()),
            (Verdict::Unstable, "a window: open (at -200 ms)")
        );
    }
}
