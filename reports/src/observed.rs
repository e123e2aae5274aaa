//! Short words for what became of a cell.

use udn_model::cell::{Cell, Check, Expectation};
use udn_model::event::CellResult;
use udn_model::observation::{Attempt, Outcome};
use udn_model::verdict::Verdict;

/// Whether this attempt is what the cell does not want, as far as the attempt alone shows.
fn is_against(expectation: &Expectation, attempt: &Attempt) -> bool {
    let outcome = &attempt.outcome;
    match expectation {
        Expectation::Open { .. } => !matches!(outcome, Outcome::Open { .. }),
        Expectation::Closed => {
            let reached = matches!(outcome, Outcome::Open { .. } | Outcome::Answered { .. } | Outcome::Garbled { .. });
            reached || attempt.arrived > 0
        }
        Expectation::Dropped => !matches!(outcome, Outcome::TimedOut) || attempt.arrived > 0,
        Expectation::Rejected => {
            !matches!(outcome, Outcome::Refused | Outcome::Reset | Outcome::Unreachable { .. }) || attempt.arrived > 0
        }
        Expectation::Resolves { .. } => outcome.word() != "resolved",
        Expectation::NoSuchName => outcome.word() != "no-such-name",
        Expectation::Holds => !matches!(outcome, Outcome::Checked { holds: true, .. }),
    }
}

/// The attempt that shows best why the verdict is what it is: the last, or for a cell that settled with a violation the
/// violation.
#[must_use]
pub fn telling(result: &CellResult) -> Option<&Attempt> {
    let against = |attempt: &&Attempt| is_against(&result.cell.expectation, attempt);
    match result.verdict {
        Verdict::Unstable | Verdict::Fail => result.attempts.iter().rfind(against).or(result.attempts.last()),
        Verdict::Error => {
            let failures = |attempt: &&Attempt| attempt.outcome.is_harness_failure();
            result.attempts.iter().rfind(failures).or(result.attempts.last())
        }
        _ => result.attempts.last(),
    }
}

/// One short word for tables: what was observed, in the place of what was expected.
#[must_use]
pub fn word(result: &CellResult) -> &'static str {
    match result.verdict {
        Verdict::Skip => return "skipped",
        Verdict::Error => return "error",
        _ => {}
    }
    let Some(attempt) = telling(result) else { return "nothing" };
    match (&result.cell.expectation, &attempt.outcome) {
        // An answer from somebody else is no answer of the target's.
        (Expectation::Open { .. }, Outcome::Open { .. })
            if !matches!(result.verdict, Verdict::Pass | Verdict::Fixed) =>
        {
            "wrong-peer"
        }
        (expectation, outcome)
            if expectation.is_negative() && attempt.arrived > 0 && !matches!(outcome, Outcome::Open { .. }) =>
        {
            "arrived"
        }
        (Expectation::Resolves { .. }, Outcome::Answered { .. })
            if result.verdict != Verdict::Pass && attempt.outcome.word() == "resolved" =>
        {
            "other-addresses"
        }
        (_, outcome) => outcome.word(),
    }
}

/// One attempt in a line: how often, when, how it ended, how many arrived.
#[must_use]
pub fn attempt(attempt: &Attempt, cell: &Cell) -> String {
    let mut line = match attempt.count {
        1 => format!("at {} ms: {}", attempt.first_ms, attempt.outcome),
        count => format!("{count} times, at {} to {} ms: {}", attempt.first_ms, attempt.last_ms, attempt.outcome),
    };
    // Frames of flows are not looked for at the other end.
    if matches!(cell.check, Check::Probe { flow: false, .. }) && cell.expectation.is_negative() {
        line.push_str(&match attempt.arrived {
            0 => "; none arrived at the target".to_owned(),
            arrived => format!("; {arrived} of {} arrived at the target", attempt.count),
        });
    }
    line
}

/// What the cell is about, in words: `blue/a → green/b@primary, tcp/8080, v4`, or the pod and fact, or the object and claim.
#[must_use]
pub fn subject(cell: &Cell) -> String {
    match &cell.check {
        Check::Probe { from, to, transport, port, family, flow, kind, .. } => {
            let port = port.map_or_else(String::new, |port| format!(" {port}"));
            let flow = if *flow { format!(", {kind}") } else { String::new() };
            format!("{from} → {to}, {transport}{port}, {family}{flow}")
        }
        Check::Series { from, to, transport, port, family, series, .. } => {
            let port = port.map_or_else(String::new, |port| format!(" {port}"));
            format!("{from} → {to}, {} times {transport}{port}, {family}", series.connections)
        }
        Check::Figure { from, to, transport, port, family, kind, promise, .. } => {
            let port = port.map_or_else(String::new, |port| format!(" {port}"));
            format!("{from} → {to}, {transport}{port}, {family}, {kind}: {promise}")
        }
        Check::Resolve { from, name, transport, family } => format!("{from} asks for {name}, {transport}, {family}"),
        Check::Fact { pod, fact, family: Some(family) } => format!("{pod}: {fact}, {family}"),
        Check::Fact { pod, fact, family: None } => format!("{pod}: {fact}"),
        Check::Object { object, claim } => format!("{object}: {claim}"),
    }
}

/// What must be found, in words.
#[must_use]
pub fn expected(cell: &Cell) -> String {
    match &cell.check {
        Check::Probe { .. } | Check::Resolve { .. } => cell.expectation.to_string(),
        Check::Series { series, .. } => series.to_string(),
        Check::Figure { .. } | Check::Fact { .. } | Check::Object { .. } => {
            cell.rule.rule().map_or_else(|| cell.expectation.to_string(), |rule| rule.promise.to_owned())
        }
    }
}

/// What was found, in words.
#[must_use]
pub fn found(result: &CellResult) -> String {
    match telling(result) {
        Some(Attempt { outcome: Outcome::Checked { found, .. }, .. }) => found.clone(),
        Some(telling) => attempt(telling, &result.cell),
        None if result.reason.is_empty() => "nothing was tried".to_owned(),
        None => result.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn an_arrival_is_told_from_an_answer() {
        let mut result = testing::probe_result("a", "b", Expectation::Closed, Verdict::Fail);
        result.attempts = vec![testing::attempt(Outcome::TimedOut, 2)];
        assert_eq!(word(&result), "arrived");
        result.attempts[0].arrived = 0;
        assert_eq!(word(&result), "timeout");
    }

    #[test]
    fn the_violation_of_an_unstable_cell_is_shown() {
        let mut result = testing::probe_result("a", "b", Expectation::Closed, Verdict::Unstable);
        result.attempts = vec![
            testing::attempt(Outcome::TimedOut, 0),
            testing::attempt(testing::open("b"), 1),
            testing::attempt(Outcome::TimedOut, 0),
        ];
        assert_eq!(word(&result), "open");
    }

    #[test]
    fn an_answer_that_does_not_pass_came_from_somebody_else() {
        let mut result = testing::probe_result("a", "b", testing::reaching("b"), Verdict::Fail);
        result.attempts = vec![testing::attempt(testing::open("c"), 0)];
        assert_eq!(word(&result), "wrong-peer");
        result.verdict = Verdict::Fixed;
        assert_eq!(word(&result), "open", "it holds, against the baseline");
    }
}
