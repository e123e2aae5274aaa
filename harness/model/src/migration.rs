//! Migrations of VMs, as the cluster and the VMs' neighbours saw them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fact::Announcement;
use crate::flow::FlowFigures;
use crate::world::PodRef;

/// A migration and everything that is known of its course.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// The VM.
    pub vm: PodRef,
    /// The node that it ran on, by its name in the cluster.
    pub from: Option<String>,
    /// The node that it runs on now.
    pub to: Option<String>,
    /// Whether the guest runs at its target.
    pub succeeded: bool,
    /// When it was asked for, microseconds since the Unix epoch by the harness' clock, as all times here.
    pub asked_us: i64,
    /// When the cluster was seen to say that it is over.
    pub over_us: i64,
    /// Its course, in order of time.
    pub marks: Vec<Mark>,
    /// How long the guest stood still, milliseconds, where the target says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    /// What was said to all after the switch: to a bystander, and to the VM about its gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcements: Vec<HeardAt>,
}

/// An announcement and who heard it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardAt {
    /// Who heard it.
    pub at: PodRef,
    /// What was said.
    #[serde(flatten)]
    pub said: Announcement,
}

/// A moment of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at_us: i64,
    /// What.
    pub what: Moment,
    /// How exact the time is, milliseconds: some are told by the second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub within_ms: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What happened at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// The cluster says that it came to this phase: `Scheduling`, `TargetReady`, `Running` …
    Phase(String),
    /// The cluster says that the guest's way to the target began.
    Started,
    /// The guest stood still at the source.
    Stopped,
    /// The guest ran at the target.
    Resumed,
    /// The target's pod was said to be ready for the network.
    TargetReady,
    /// The cluster says that it ended.
    Ended,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phase(phase) => f.pad(&format!("phase {phase}")),
            Self::Started => f.pad("started"),
            Self::Stopped => f.pad("guest stopped"),
            Self::Resumed => f.pad("guest runs at the target"),
            Self::TargetReady => f.pad("network told"),
            Self::Ended => f.pad("ended"),
        }
    }
}

impl Migration {
    /// When the guest ran at the target, as exactly as is known.
    #[must_use]
    pub fn switched_us(&self) -> Option<i64> {
        let at = |what: &Moment| self.marks.iter().find(|mark| mark.what == *what).map(|mark| mark.at_us);
        at(&Moment::Resumed).or_else(|| at(&Moment::TargetReady)).or_else(|| at(&Moment::Ended))
    }

    /// Of a flow's longest gap that touches the migration: how much of it the guest stood still, and how much the network
    /// took to follow; milliseconds. `None` where the target does not show both, or the flow was not out.
    #[must_use]
    pub fn split(&self, flow: &FlowFigures) -> Option<Split> {
        let resumed = self.marks.iter().find(|mark| mark.what == Moment::Resumed && mark.within_ms == 0)?;
        let pause_ms = self.pause_ms?;
        let ends = |gap: &crate::flow::FlowGap| gap.at_us + i64::try_from(gap.took_ms * 1000).unwrap_or(i64::MAX);
        let gap = flow.gaps.iter().filter(|gap| gap.at_us <= resumed.at_us && ends(gap) >= resumed.at_us);
        let gap = gap.max_by_key(|gap| gap.took_ms)?;
        let network_ms = u64::try_from((ends(gap) - resumed.at_us) / 1000).unwrap_or_default();
        Some(Split { pause_ms, network_ms })
    }
}

/// What an outage consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The guest stood still.
    pub pause_ms: u64,
    /// From when it ran again until the first reply.
    pub network_ms: u64,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest paused {} ms, network back {} ms after it ran again", self.pause_ms, self.network_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowGap;

    fn mark(at_ms: i64, what: Moment) -> Mark {
        Mark { at_us: at_ms * 1000, what, within_ms: 0 }
    }

    #[test]
    fn an_outage_is_split_where_the_target_shows_both() {
        let mut migration = Migration {
            vm: PodRef::new("red", "db"),
            from: None,
            to: None,
            succeeded: true,
            asked_us: 0,
            over_us: 9_000_000,
            marks: vec![mark(1000, Moment::Stopped), mark(1010, Moment::Resumed), mark(1015, Moment::TargetReady)],
            pause_ms: Some(10),
            announcements: vec![],
        };
        let gap = |at_ms: i64, took_ms| FlowGap { at_us: at_ms * 1000, took_ms, starved_ms: 0, open: false };
        let flow = FlowFigures { gaps: vec![gap(200, 500), gap(995, 165)], ..FlowFigures::default() };
        assert_eq!(migration.split(&flow), Some(Split { pause_ms: 10, network_ms: 150 }));
        assert_eq!(migration.split(&FlowFigures::default()), None);
        assert_eq!(migration.switched_us(), Some(1_010_000));
        migration.marks.remove(1);
        assert_eq!((migration.split(&flow), migration.switched_us()), (None, Some(1_015_000)));
    }
}
