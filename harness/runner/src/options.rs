//! What a user may choose about a run.

use std::time::Duration;

use tokio::sync::watch;
use udn_model::baseline::Baseline;
use udn_model::flow::OUTAGE_BUDGET_MS;
use udn_model::verdict::Allow;

/// What stays in the cluster after the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    #[default]
    Never,
    /// Worlds in which a cell is not good.
    OnFailure,
    /// Everything.
    Always,
}

/// How a run goes about.
#[derive(Clone, Debug)]
pub struct Options {
    /// Consecutive matching rounds after which a cell has settled.
    pub settle_rounds: u32,
    /// How long a matrix may take to settle, from the end of its phase's actions.
    pub settle_deadline: Duration,
    /// How long a settled matrix must hold; zero: one further round.
    pub hold: Duration,
    /// How long a probe that must not get through is waited for. At least 2 s: a lost SYN is sent again after 1 s.
    pub deny_timeout: Duration,
    /// How long a probe that must get through is waited for before it is made once more. Longer than a denied one: it costs
    /// nothing while all is well.
    pub open_timeout: Duration,
    /// How long that second attempt is waited for: a busy machine is no broken network.
    pub second_timeout: Duration,
    /// How long a flow may be out over a migration.
    pub outage_budget: Duration,
    /// Rounds start at least this far apart; they overlap while only denied probes are waited for.
    pub round_interval: Duration,
    /// How long a probe is waited for while it is watched for windows from the first packet.
    pub watch_timeout: Duration,
    /// What stays in the cluster.
    pub keep: Keep,
    /// Makes source ports and nonces repeatable.
    pub seed: u64,
    /// Worlds being provisioned at once.
    pub world_concurrency: usize,
    /// Worlds alive at once; one with VMs counts twice.
    pub worlds_alive: usize,
    /// Probes that may be on their way at once at most, all worlds together; fewer while answers are slow.
    pub probes_in_flight: usize,
    /// Scenarios probe at the same time as long as one round of each of them has no more probes than this together.
    pub probes_at_once: usize,
    /// For the whole run; what is not judged by then is an error.
    pub deadline: Option<Duration>,
    /// Told why nothing more can be learnt from the target, once that is so: the run ends early.
    pub lost: Option<watch::Receiver<Option<String>>>,
    /// Cells that are known to fail. [`run`](crate::run()) leaves those out that are of other targets or versions.
    pub baseline: Baseline,
    /// Verdicts that do not fail the run.
    pub allow: Allow,
    /// Cells per phase that get objects' and network's state as evidence; the others get attempts and the command only.
    pub evidence_cells: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settle_rounds: 3,
            settle_deadline: Duration::from_secs(30),
            hold: Duration::ZERO,
            deny_timeout: Duration::from_secs(2),
            open_timeout: Duration::from_secs(3),
            second_timeout: Duration::from_secs(6),
            outage_budget: Duration::from_millis(OUTAGE_BUDGET_MS),
            round_interval: Duration::from_millis(500),
            watch_timeout: Duration::from_millis(400),
            keep: Keep::Never,
            seed: 0,
            world_concurrency: 2,
            worlds_alive: 4,
            probes_in_flight: 2048,
            probes_at_once: 4096,
            deadline: None,
            lost: None,
            baseline: Baseline::default(),
            allow: Allow::default(),
            evidence_cells: 20,
        }
    }
}
