//! Everything a run reports. Reporters see nothing else; `events.jsonl` is this enum, one line each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, CellId};
use crate::flow::FlowFigures;
use crate::migration::{Migration, Split};
use crate::observation::{Attempt, Evidence};
use crate::verdict::{Counts, ExitCode, Verdict};

/// The version of this format; a reader refuses a newer one.
pub const FORMAT: u32 = 1;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The first event of a run.
    RunStarted {
        /// [`FORMAT`].
        format: u32,
        /// The run's id: in every object's label and name.
        run: String,
        /// `lab` or `kube`.
        target: String,
        /// The kubeconfig context or the lab's name.
        context: String,
        /// Program, Kubernetes, OVN, Open vSwitch …
        versions: BTreeMap<String, String>,
        /// The filters as typed.
        filters: Vec<String>,
        /// How many cells are planned (skips included).
        cells: usize,
        /// How many scenarios.
        scenarios: usize,
    },
    /// Something that takes a while begins: `lab`, `packages`, `world layer3` …
    StageStarted {
        /// What.
        stage: String,
    },
    /// A stage got further.
    StageProgress {
        /// What.
        stage: String,
        /// One line.
        message: String,
    },
    /// A stage is done.
    StageFinished {
        /// What.
        stage: String,
        /// Milliseconds.
        duration_ms: u64,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// A scenario begins.
    ScenarioStarted {
        /// The suite.
        suite: String,
        /// The scenario.
        scenario: String,
        /// Its title.
        title: String,
        /// How many cells it has, skips included.
        cells: usize,
    },
    /// One round of a phase's matrix is over.
    RoundFinished {
        /// The suite.
        suite: String,
        /// The scenario.
        scenario: String,
        /// The phase.
        phase: String,
        /// 1-based.
        round: u32,
        /// How many cells were probed.
        cells: usize,
        /// How many matched their expectation.
        matching: usize,
        /// Milliseconds.
        duration_ms: u64,
    },
    /// A cell has its verdict.
    CellFinished(Box<CellResult>),
    /// A VM was migrated, or was to be, in a phase; told once its flows' figures are known.
    Migrated(Box<MigrationReport>),
    /// A phase is over.
    PhaseFinished {
        /// The suite.
        suite: String,
        /// The scenario.
        scenario: String,
        /// The phase.
        phase: String,
        /// Verdicts of its cells.
        counts: Counts,
        /// Milliseconds, actions included.
        duration_ms: u64,
        /// What failed before anything could be judged.
        error: Option<String>,
    },
    /// A scenario is over.
    ScenarioFinished {
        /// The suite.
        suite: String,
        /// The scenario.
        scenario: String,
        /// Verdicts of its cells.
        counts: Counts,
        /// Milliseconds.
        duration_ms: u64,
        /// Milliseconds until the slowest of its cells had settled.
        settled_ms: Option<u64>,
    },
    /// Something that a reader should know and that changes no verdict.
    Warning {
        /// One line.
        message: String,
    },
    /// The last event of a run. A run without it did not finish.
    RunFinished {
        /// Verdicts of all cells.
        counts: Counts,
        /// Milliseconds.
        duration_ms: u64,
        /// Where the time went.
        time: TimeBudget,
        /// What the program exits with.
        exit: ExitCode,
    },
}

/// Where the time of a run went, milliseconds. Scenarios run side by side: the sum may exceed the duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBudget {
    /// Target and worlds.
    pub setup_ms: u64,
    /// Actions and rounds until the matrices matched.
    pub settling_ms: u64,
    /// The part of all rounds in which only denied probes were waited for.
    pub deny_wait_ms: u64,
    /// The rest of all rounds.
    pub probing_ms: u64,
    /// Evidence and clean-up.
    pub cleanup_ms: u64,
}

/// A migration's course and what it was to the flows of its phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// The suite.
    pub suite: String,
    /// The scenario.
    pub scenario: String,
    /// The phase.
    pub phase: String,
    /// Its course.
    #[serde(flatten)]
    pub migration: Migration,
    /// Flows of the phase.
    pub flows: Vec<FlowTrace>,
}

/// How a flow fared in a migration's phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTrace {
    /// The flow's cell.
    pub cell: CellId,
    /// What its outage consists of, where the target shows both parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Its figures: gaps, and replies or bytes by tenths of a second.
    #[serde(flatten)]
    pub figures: FlowFigures,
}

/// A cell and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The cell as planned.
    pub cell: Cell,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why, in one line; empty for a pass.
    pub reason: String,
    /// Milliseconds from the end of the phase's actions to the first of the rounds that matched to the end; `None` where
    /// it never settled.
    pub settled_ms: Option<u64>,
    /// What was observed, in order.
    pub attempts: Vec<Attempt>,
    /// What supports the verdict.
    pub evidence: Evidence,
}
