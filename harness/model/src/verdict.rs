//! Verdicts, their counts and the exit code that they make.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The end of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Holds, on evidence.
    Pass,
    /// Does not hold.
    Fail,
    /// Settled, but not without a violation or a flap.
    Unstable,
    /// Could not be judged: never a pass, never a fail.
    Error,
    /// Not tried, for a reason.
    Skip,
    /// Fails as the baseline says.
    Known,
    /// The baseline says it fails; it passes.
    Fixed,
}

impl Verdict {
    /// All verdicts, in the order reports count them.
    pub const ALL: [Self; 7] =
        [Self::Pass, Self::Fail, Self::Unstable, Self::Error, Self::Skip, Self::Known, Self::Fixed];

    /// Whether a run with this verdict in it can pass.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Pass | Self::Skip | Self::Known)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unstable => "unstable",
            Self::Error => "error",
            Self::Skip => "skip",
            Self::Known => "known",
            Self::Fixed => "fixed",
        })
    }
}

/// How many cells ended in which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Cells that pass.
    pub pass: usize,
    /// Cells that fail.
    pub fail: usize,
    /// Cells that settled with a violation or a flap.
    pub unstable: usize,
    /// Cells that could not be judged.
    pub error: usize,
    /// Cells not tried.
    pub skip: usize,
    /// Cells that fail as the baseline says.
    pub known: usize,
    /// Cells that pass although the baseline says they fail.
    pub fixed: usize,
}

impl Counts {
    /// Counts one more cell.
    pub const fn add(&mut self, verdict: Verdict) {
        let slot = match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Fail => &mut self.fail,
            Verdict::Unstable => &mut self.unstable,
            Verdict::Error => &mut self.error,
            Verdict::Skip => &mut self.skip,
            Verdict::Known => &mut self.known,
            Verdict::Fixed => &mut self.fixed,
        };
        *slot += 1;
    }

    /// The count of one verdict.
    #[must_use]
    pub const fn of(&self, verdict: Verdict) -> usize {
        match verdict {
            Verdict::Pass => self.pass,
            Verdict::Fail => self.fail,
            Verdict::Unstable => self.unstable,
            Verdict::Error => self.error,
            Verdict::Skip => self.skip,
            Verdict::Known => self.known,
            Verdict::Fixed => self.fixed,
        }
    }

    /// All cells.
    #[must_use]
    pub fn total(&self) -> usize {
        Verdict::ALL.iter().map(|verdict| self.of(*verdict)).sum()
    }

    /// The worst verdict: what a scenario or phase is called after.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        [Verdict::Fail, Verdict::Error, Verdict::Unstable, Verdict::Fixed, Verdict::Known, Verdict::Pass]
            .into_iter()
            .find(|verdict| self.of(*verdict) > 0)
            .unwrap_or(Verdict::Skip)
    }

    /// The exit code of a finished run with these counts.
    #[must_use]
    pub const fn exit_code(&self, allow: Allow) -> ExitCode {
        if self.fail > 0 || (self.unstable > 0 && !allow.unstable) || (self.fixed > 0 && !allow.fixed) {
            ExitCode::Failed
        } else if self.error > 0 {
            ExitCode::Errors
        } else if self.pass + self.known + self.unstable + self.fixed == 0 {
            ExitCode::NothingSelected
        } else {
            ExitCode::Passed
        }
    }
}

impl FromIterator<Verdict> for Counts {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        let mut counts = Self::default();
        verdicts.into_iter().for_each(|verdict| counts.add(verdict));
        counts
    }
}

/// Verdicts that the user tolerates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// `--allow-unstable`.
    pub unstable: bool,
    /// `--allow-fixed`.
    pub fixed: bool,
}

/// What the program exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCode {
    /// 0: everything holds.
    Passed,
    /// 1: some cells fail, are unstable or fixed.
    Failed,
    /// 2: the command line or an input file is wrong.
    Usage,
    /// 3: some cells could not be judged; none failed.
    Errors,
    /// 4: nothing was selected.
    NothingSelected,
    /// 5: the target could not be set up.
    SetupFailed,
    /// 130: interrupted.
    Interrupted,
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Errors => 3,
            Self::NothingSelected => 4,
            Self::SetupFailed => 5,
            Self::Interrupted => 130,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_worst_verdict() {
        let code =
            |verdicts: &[Verdict]| verdicts.iter().copied().collect::<Counts>().exit_code(Allow::default()).code();
        assert_eq!(code(&[Verdict::Pass, Verdict::Known, Verdict::Skip]), 0);
        assert_eq!(code(&[Verdict::Pass, Verdict::Error]), 3);
        assert_eq!(code(&[Verdict::Fail, Verdict::Error]), 1);
        assert_eq!(code(&[Verdict::Pass, Verdict::Unstable]), 1);
        assert_eq!(code(&[Verdict::Pass, Verdict::Fixed]), 1);
        assert_eq!(code(&[Verdict::Skip]), 4);
        assert_eq!(code(&[]), 4);
    }

    #[test]
    fn tolerated_verdicts_pass() {
        let counts: Counts = [Verdict::Unstable, Verdict::Fixed].into_iter().collect();
        assert_eq!(counts.exit_code(Allow { unstable: true, fixed: true }), ExitCode::Passed);
        assert_eq!(counts.exit_code(Allow { unstable: true, fixed: false }), ExitCode::Failed);
    }
}
