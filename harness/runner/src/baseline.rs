//! What known issues make of a verdict. Pure.

use udn_model::baseline::Baseline;
use udn_model::cell::Cell;
use udn_model::verdict::Verdict;

use crate::history::Conclusion;

/// A cell that fails or is unstable as the baseline says is known; one that passes though it should always fail is fixed.
/// What could not be judged stays an error.
pub(crate) fn apply(baseline: &Baseline, cell: &Cell, conclusion: Conclusion) -> Conclusion {
    let Some(issue) = baseline.of(cell).next() else { return conclusion };
    match conclusion.verdict {
        Verdict::Fail | Verdict::Unstable => {
            let reason = format!("known as {}; now {}: {}", issue.told(), conclusion.verdict, conclusion.reason);
            Conclusion { verdict: Verdict::Known, reason, ..conclusion }
        }
        Verdict::Pass if !issue.sometimes => {
            let reason = format!("holds, though it is known to fail as {}: take it off the baseline", issue.told());
            Conclusion { verdict: Verdict::Fixed, reason, ..conclusion }
        }
        _ => conclusion,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use udn_model::baseline::KnownIssue;
    use udn_model::cell::{CellId, Check, Claim, Expectation, ObjectRef};
    use udn_model::rule::RuleName;

    use super::*;

    fn cell(rule: &str) -> Cell {
        Cell {
            id: CellId("policy::one::first::x".into()),
            suite: "policy".into(),
            scenario: "one".into(),
            phase: "first".into(),
            rule: RuleName::new(rule),
            check: Check::Object { object: ObjectRef::cluster("", "", ""), claim: Claim::Exists },
            expectation: Expectation::Holds,
            topology: None,
            requires: vec![],
        }
    }

    #[rstest]
    #[case(Verdict::Fail, false, Verdict::Known)]
    #[case(Verdict::Unstable, false, Verdict::Known)]
    #[case(Verdict::Pass, false, Verdict::Fixed)]
    #[case(Verdict::Pass, true, Verdict::Pass)]
    #[case(Verdict::Fail, true, Verdict::Known)]
    #[case(Verdict::Error, false, Verdict::Error)]
    fn verdicts(#[case] found: Verdict, #[case] sometimes: bool, #[case] told: Verdict) {
        let issue = KnownIssue {
            name: "X-1".into(),
            cells: vec!["rule:policy/allow-rules".into()],
            targets: vec![],
            versions: std::collections::BTreeMap::new(),
            sometimes,
            reason: "it does not work".into(),
            issue: Some("#7".into()),
        };
        let baseline = Baseline::new(vec![issue], &[]).unwrap();
        let conclusion = || Conclusion { verdict: found, reason: "open".into(), settled_ms: Some(1) };
        let applied = apply(&baseline, &cell("policy/allow-rules"), conclusion());
        assert_eq!(applied.verdict, told);
        assert_eq!(applied.reason.contains("X-1 (#7): it does not work"), told != found);
        assert_eq!(apply(&baseline, &cell("policy/removal"), conclusion()).verdict, found);
    }
}
