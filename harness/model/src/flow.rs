//! Flows: connections that go on from phase to phase, while something happens to their ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The TCP port that returns what it is sent, in pods that declare it: flows over TCP need one. Flows over UDP go to any
/// port that introduces itself.
pub const FLOW_PORT: u16 = 7007;

/// What a bulk transfer sends a second at most, bytes. Enough to see 100 ms of it in a picture, and few enough for a guest
/// that is emulated: these are some 350 segments a second, as much as three and a half other flows. What is measured is the
/// migration, not what the guest can bear.
pub const BULK_BYTES_PER_SECOND: u32 = 500_000;

/// How long a flow may be out over a migration where nothing else is said, milliseconds. KubeVirt's own aim is 900 ms of
/// pause; nobody documents how long the network may take (catalog of upstream facts, 2.7): this is the harness' own choice.
pub const OUTAGE_BUDGET_MS: u64 = 2000;

/// Gaps of the same length that seem to have begun within so long of each other are one, microseconds.
const SAME_US: i64 = 50_000;

/// Gaps that are kept of a flow in one phase at most, the longest ones.
pub const GAPS_TOLD: usize = 16;

/// What a flow carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowKind {
    /// A frame every ten milliseconds, each of which comes back.
    #[default]
    Frames,
    /// A bulk transfer: bytes one way over TCP, at most [`BULK_BYTES_PER_SECOND`]. What counts is what the target's kernel
    /// has acknowledged; what the target gets it compares with what was sent.
    Bulk,
}

impl FlowKind {
    /// Whether it is [`Self::Frames`], which is not written: flows were nothing else once.
    #[must_use]
    pub fn is_frames(&self) -> bool {
        *self == Self::Frames
    }
}

impl fmt::Display for FlowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Frames => "flow",
            Self::Bulk => "bulk",
        })
    }
}

/// A time without replies, or without bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowGap {
    /// The last reply or byte before it, microseconds since the Unix epoch by the harness' clock.
    pub at_us: i64,
    /// Until the first one after it, milliseconds.
    pub took_ms: u64,
    /// For how much of it the sender's agent itself had no processor, milliseconds: that says nothing of the network.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub starved_ms: u64,
    /// Whether there was no reply until the flow was last looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a flow fared, as its sender counted it. A bulk transfer has no frames: of it `sent`, `received` and `lost` say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFigures {
    /// What it carries.
    #[serde(default, skip_serializing_if = "FlowKind::is_frames")]
    pub kind: FlowKind,
    /// Frames sent since the flow began; one every ten milliseconds.
    pub sent: u64,
    /// Of these, how many came back.
    pub received: u64,
    /// How many did not, though a later one did. TCP: none, else the stream is broken.
    pub lost: u64,
    /// TCP segments sent again.
    pub retransmits: u32,
    /// The longest time without a reply (of a bulk transfer: without a byte) in this phase, milliseconds: from the last reply
    /// before it to the first one after it, or to the end of the phase. What is shorter than 50 ms (of a bulk transfer:
    /// 100 ms) is not counted.
    pub outage_ms: u64,
    /// Bytes sent since the flow began; of a bulk transfer, those that were acknowledged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_sent: u64,
    /// Bytes that came back since then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_received: u64,
    /// Of the frames lost, how many were lost in this phase.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_now: u64,
    /// Why it ended, if it did: a flow is not begun again, what comes after it is for new connections to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// The longest gaps of this phase, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<FlowGap>,
    /// Replies in each tenth of a second of this phase, as far as they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<FlowRate>,
    /// Of a bulk transfer: bytes acknowledged in each tenth of a second of this phase, as far as they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<FlowRate>,
}

/// Replies or bytes over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRate {
    /// When the first tenth of a second began, microseconds since the Unix epoch by the harness' clock.
    pub from_us: i64,
    /// Replies, or bytes, in each.
    pub per_100ms: Vec<u64>,
}

/// Tenths of a second that are kept of a flow in one phase at most, the latest ones: a minute.
pub const RATE_KEPT: usize = 600;

impl FlowRate {
    /// One class of it, microseconds.
    pub const CLASS_US: i64 = 100_000;

    /// How many a second, over all of it but the last class, which need not have ended.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        let whole = self.per_100ms.len().saturating_sub(1);
        self.per_100ms.iter().take(whole).sum::<u64>() * 10 / u64::try_from(whole).unwrap_or(u64::MAX).max(1)
    }

    /// What was told first with what was told later, which knows better where both speak.
    #[must_use]
    fn then(mut self, later: &Self) -> Self {
        // Both clocks are read anew each time: by a few milliseconds they may disagree.
        let apart = (later.from_us - self.from_us + Self::CLASS_US / 2).div_euclid(Self::CLASS_US);
        let Ok(apart) = usize::try_from(apart) else { return later.clone() };
        self.per_100ms.resize(apart, 0);
        self.per_100ms.extend(&later.per_100ms);
        let over = self.per_100ms.len().saturating_sub(RATE_KEPT);
        self.per_100ms.drain(..over);
        self.from_us += i64::try_from(over).unwrap_or_default() * Self::CLASS_US;
        self
    }
}

impl FlowFigures {
    /// The figures of a phase of which `self` tells the earlier part.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let mut gaps: Vec<FlowGap> = self.gaps.into_iter().filter(|gap| !gap.open).chain(later.gaps).collect();
        // One that is told again is known better: by then it is known whether an agent stood still. Clocks are read anew
        // each time, and agree to some milliseconds.
        gaps.sort_by_key(|gap| gap.at_us);
        gaps.dedup_by(|later, earlier| {
            let same = later.took_ms == earlier.took_ms && later.at_us - earlier.at_us < SAME_US;
            if same {
                earlier.starved_ms = earlier.starved_ms.max(later.starved_ms);
            }
            same
        });
        while gaps.len() > GAPS_TOLD {
            let Some(shortest) = (0..gaps.len()).min_by_key(|index| gaps[*index].took_ms) else { break };
            gaps.remove(shortest);
        }
        Self {
            outage_ms: self.outage_ms.max(later.outage_ms),
            lost_now: self.lost_now + later.lost_now,
            rate: joined(self.rate, later.rate),
            throughput: joined(self.throughput, later.throughput),
            gaps,
            ..later
        }
    }

    /// Whether anything is known of it.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        match self.kind {
            FlowKind::Frames => self.sent > 0,
            FlowKind::Bulk => self.bytes_sent > 0,
        }
    }

    /// The longest gap of the phase.
    #[must_use]
    pub fn longest(&self) -> Option<&FlowGap> {
        self.gaps.iter().max_by_key(|gap| gap.took_ms)
    }
}

fn joined(earlier: Option<FlowRate>, later: Option<FlowRate>) -> Option<FlowRate> {
    match (earlier, later) {
        (Some(earlier), Some(later)) => Some(earlier.then(&later)),
        (earlier, later) => later.or(earlier),
    }
}

/// Bytes in millions, with two digits behind the point: `1.50 MB`.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    format!("{}.{:02} MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000)
}

/// What is promised of a flow's figures in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowPromise {
    /// It was not cut, and no byte of it is lost.
    Intact,
    /// It was not cut, and was out no longer than the run's budget.
    Outage,
    /// What it lost is counted; as much as it may be. Where it did not come back, there is nothing to count by.
    Loss,
}

impl fmt::Display for FlowPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Intact => "intact",
            Self::Outage => "outage",
            Self::Loss => "loss",
        })
    }
}

/// What figures mean for a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowJudged {
    /// It holds: what was found.
    Holds(String),
    /// It does not.
    Broken(String),
    /// The figures do not tell.
    Unknown(String),
}

/// Whether a promise holds. `budget_ms`: how long a flow may be out.
#[must_use]
pub fn judge(promise: FlowPromise, figures: Option<&FlowFigures>, budget_ms: u64) -> FlowJudged {
    let Some(figures) = figures.filter(|figures| figures.is_known()) else {
        return FlowJudged::Unknown("nothing is known of the flow".into());
    };
    let (lost, sent) = (figures.lost_now, figures.sent);
    match (promise, &figures.ended, silent(figures, budget_ms)) {
        (FlowPromise::Intact | FlowPromise::Outage, Some(why), _) => {
            FlowJudged::Broken(format!("the flow was cut: {why}"))
        }
        (FlowPromise::Loss, Some(why), _) => {
            FlowJudged::Unknown(format!("the flow ended, and its count with it: {why}"))
        }
        (FlowPromise::Outage, None, _) => outage(figures, budget_ms),
        (FlowPromise::Intact, None, _) if figures.lost > 0 => {
            FlowJudged::Broken(format!("{} of {sent} frames are missing from the stream", figures.lost))
        }
        (FlowPromise::Intact, None, Some((why, true))) => FlowJudged::Broken(why),
        (FlowPromise::Intact | FlowPromise::Loss, None, Some((why, _))) => FlowJudged::Unknown(why),
        (FlowPromise::Intact, None, None) if figures.kind == FlowKind::Bulk => FlowJudged::Holds(format!(
            "{} acknowledged, every byte as it was sent; {} segments sent again",
            megabytes(figures.bytes_sent),
            figures.retransmits
        )),
        (FlowPromise::Intact, None, None) => FlowJudged::Holds(format!(
            "{} bytes sent, {} came back, the last ones on their way; {} segments sent again",
            figures.bytes_sent, figures.bytes_received, figures.retransmits
        )),
        (FlowPromise::Loss, None, None) => {
            FlowJudged::Holds(format!("{lost} frames lost in this phase; {sent} sent since it began"))
        }
    }
}

/// What is to be said of a flow that was out for longer than it may be when it was last looked at, and whether that is the
/// network's: a frame counts as lost or as back only once a later one came back.
fn silent(figures: &FlowFigures, budget_ms: u64) -> Option<(String, bool)> {
    let gap = figures.gaps.iter().find(|gap| gap.open && gap.took_ms > budget_ms)?;
    let what = match figures.kind {
        FlowKind::Frames => "reply",
        FlowKind::Bulk => "byte acknowledged",
    };
    let why = format!(
        "no {what} for {} ms when it was last looked at: nobody knows what became of what it sent",
        gap.took_ms
    );
    Some((why, gap.took_ms.saturating_sub(gap.starved_ms) > budget_ms))
}

fn outage(figures: &FlowFigures, budget_ms: u64) -> FlowJudged {
    let out = figures.outage_ms;
    let told = match out {
        0 => "no outage".to_owned(),
        out => format!("out for {out} ms"),
    };
    if out <= budget_ms {
        return FlowJudged::Holds(told);
    }
    // All that is over the budget has to be free of the agent's own standstill, else it says nothing of the network.
    let over: Vec<&FlowGap> = figures.gaps.iter().filter(|gap| gap.took_ms > budget_ms).collect();
    let network = |gap: &&FlowGap| gap.took_ms.saturating_sub(gap.starved_ms) > budget_ms;
    if !over.is_empty() && !over.iter().any(network) {
        let starved = over.iter().map(|gap| gap.starved_ms).max().unwrap_or_default();
        return FlowJudged::Unknown(format!(
            "{told}, but the sender's own agent stood still for {starved} ms of it: too much was asked of the machine"
        ));
    }
    FlowJudged::Broken(format!("{told}; at most {budget_ms} ms are allowed (--outage-budget)"))
}

impl fmt::Display for FlowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, lost, retransmits, outage_ms, ended, .. } = self;
        match self.kind {
            FlowKind::Frames => write!(f, "{sent} frames sent since it began, {received} came back")?,
            FlowKind::Bulk => write!(f, "{} acknowledged since it began", megabytes(self.bytes_sent))?,
        }
        if let Some(throughput) = &self.throughput {
            write!(f, ", {}/s in this phase", megabytes(throughput.per_second()))?;
        }
        if *lost > 0 {
            write!(f, ", {lost} were lost")?;
        }
        if *retransmits > 0 {
            write!(f, ", {retransmits} segments sent again")?;
        }
        match outage_ms {
            0 => write!(f, "; no outage in this phase")?,
            ms => write!(f, "; longest outage in this phase {ms} ms")?,
        }
        if self.gaps.len() > 1 {
            write!(f, " ({} in all)", self.gaps.len())?;
        }
        match ended {
            Some(why) => write!(f, "; it ended: {why}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_has_its_longest_outage_and_the_latest_counts() {
        let look = |sent, outage_ms| FlowFigures { sent, outage_ms, ..FlowFigures::default() };
        assert_eq!(look(10, 700).then(look(20, 60)), look(20, 700));
        assert_eq!(look(10, 0).then(look(20, 60)), look(20, 60));
    }

    fn gap(at_ms: i64, took_ms: u64, starved_ms: u64) -> FlowGap {
        FlowGap { at_us: at_ms * 1000, took_ms, starved_ms, open: false }
    }

    fn out(gaps: &[FlowGap]) -> FlowFigures {
        let outage_ms = gaps.iter().map(|gap| gap.took_ms).max().unwrap_or_default();
        FlowFigures { sent: 900, received: 800, outage_ms, gaps: gaps.to_vec(), ..FlowFigures::default() }
    }

    #[test]
    fn a_rate_goes_on_where_it_was_told_before() {
        let rate =
            |from_ms: i64, per_100ms: &[u64]| FlowRate { from_us: from_ms * 1000, per_100ms: per_100ms.to_vec() };
        let told = rate(1000, &[10, 10, 4]).then(&rate(1203, &[10, 0, 0, 3]));
        assert_eq!(told, rate(1000, &[10, 10, 10, 0, 0, 3]), "the last class was not over yet");
        assert_eq!(told.clone().then(&rate(1900, &[8])), rate(1000, &[10, 10, 10, 0, 0, 3, 0, 0, 0, 8]));
        let long = told.then(&rate(1600, &[7; RATE_KEPT]));
        assert_eq!((long.from_us, long.per_100ms.len()), (1_600_000, RATE_KEPT));
    }

    fn bulk(gaps: &[FlowGap]) -> FlowFigures {
        let throughput = FlowRate { from_us: 0, per_100ms: vec![150_000, 150_000, 0, 300_000, 7] };
        let kind = FlowKind::Bulk;
        FlowFigures {
            kind,
            sent: 0,
            received: 0,
            bytes_sent: 6_240_007,
            retransmits: 3,
            throughput: Some(throughput),
            ..out(gaps)
        }
    }

    #[test]
    fn a_bulk_transfer_is_judged_by_its_bytes() {
        let of = |promise, figures: &FlowFigures| judge(promise, Some(figures), 2000);
        let whole = bulk(&[gap(0, 240, 0)]);
        assert_eq!(
            of(FlowPromise::Intact, &whole),
            FlowJudged::Holds("6.24 MB acknowledged, every byte as it was sent; 3 segments sent again".into())
        );
        assert_eq!(of(FlowPromise::Outage, &whole), FlowJudged::Holds("out for 240 ms".into()));
        assert_eq!(
            whole.to_string(),
            "6.24 MB acknowledged since it began, 1.50 MB/s in this phase, 3 segments sent again; longest outage in this phase 240 ms"
        );
        let other = FlowFigures { ended: Some("garbled: the peer got other bytes than were sent".into()), ..bulk(&[]) };
        assert!(matches!(of(FlowPromise::Intact, &other), FlowJudged::Broken(why) if why.contains("other bytes")));
        let silent = bulk(&[FlowGap { open: true, ..gap(0, 30_000, 0) }]);
        assert!(matches!(of(FlowPromise::Intact, &silent), FlowJudged::Broken(why) if why.contains("no byte")));
        assert!(matches!(of(FlowPromise::Outage, &bulk(&[gap(0, 3000, 2500)])), FlowJudged::Unknown(_)));
        let never = FlowFigures { bytes_sent: 0, ..bulk(&[]) };
        assert!(matches!(of(FlowPromise::Intact, &never), FlowJudged::Unknown(_)));
    }

    #[test]
    fn the_throughput_of_a_phase_is_told_in_one() {
        let look = |from_us, per_100ms: &[u64]| FlowFigures {
            throughput: Some(FlowRate { from_us, per_100ms: per_100ms.to_vec() }),
            ..bulk(&[])
        };
        let both = look(0, &[150_000, 20_000]).then(look(100_000, &[150_000, 90_000]));
        assert_eq!(both.throughput.unwrap().per_100ms, [150_000, 150_000, 90_000]);
    }

    #[test]
    fn an_outage_is_the_networks_unless_the_agent_stood_still() {
        let of = |gaps: &[FlowGap]| judge(FlowPromise::Outage, Some(&out(gaps)), 2000);
        assert_eq!(of(&[]), FlowJudged::Holds("no outage".into()));
        assert_eq!(of(&[gap(0, 163, 0)]), FlowJudged::Holds("out for 163 ms".into()));
        assert!(matches!(of(&[gap(0, 3000, 0)]), FlowJudged::Broken(why) if why.contains("3000 ms")));
        assert!(matches!(of(&[gap(0, 3000, 2500)]), FlowJudged::Unknown(why) if why.contains("2500 ms")));
        assert!(matches!(of(&[gap(0, 3000, 2500), gap(9000, 2400, 10)]), FlowJudged::Broken(_)));
        assert!(matches!(judge(FlowPromise::Outage, None, 2000), FlowJudged::Unknown(_)));
    }

    #[test]
    fn a_cut_flow_is_broken_whatever_its_outage() {
        let cut = FlowFigures { ended: Some("reset".into()), ..out(&[]) };
        assert!(
            matches!(judge(FlowPromise::Outage, Some(&cut), 2000), FlowJudged::Broken(why) if why.contains("reset"))
        );
        assert!(matches!(judge(FlowPromise::Intact, Some(&cut), 2000), FlowJudged::Broken(_)));
        let lossy = FlowFigures { lost: 3, lost_now: 3, ..out(&[]) };
        assert!(matches!(judge(FlowPromise::Intact, Some(&lossy), 2000), FlowJudged::Broken(_)));
        assert!(
            matches!(judge(FlowPromise::Loss, Some(&lossy), 2000), FlowJudged::Holds(told) if told.starts_with("3 "))
        );
    }

    #[test]
    fn a_flow_that_did_not_come_back_is_neither_whole_nor_counted() {
        let of = |promise, gap| judge(promise, Some(&out(&[gap])), 2000);
        let silent = FlowGap { open: true, ..gap(0, 30_000, 0) };
        assert!(matches!(of(FlowPromise::Intact, silent), FlowJudged::Broken(why) if why.contains("30000 ms")));
        assert!(matches!(of(FlowPromise::Loss, silent), FlowJudged::Unknown(why) if why.contains("30000 ms")));
        let starved = FlowGap { starved_ms: 29_000, ..silent };
        assert!(matches!(of(FlowPromise::Intact, starved), FlowJudged::Unknown(_)));
        let moment = FlowGap { open: true, ..gap(0, 60, 0) };
        assert!(matches!(of(FlowPromise::Intact, moment), FlowJudged::Holds(_)));
        assert!(matches!(of(FlowPromise::Loss, moment), FlowJudged::Holds(_)));
        let ended = FlowFigures { ended: Some("unreachable".into()), ..out(&[]) };
        assert!(matches!(judge(FlowPromise::Loss, Some(&ended), 2000), FlowJudged::Unknown(_)));
    }

    #[test]
    fn an_open_gap_is_told_once_it_has_ended() {
        let open = FlowGap { open: true, ..gap(100, 700, 0) };
        let both = out(&[open]).then(out(&[gap(100, 900, 0), gap(5000, 60, 0)]));
        assert_eq!(both.gaps, [gap(100, 900, 0), gap(5000, 60, 0)]);
        assert_eq!(both.longest(), Some(&gap(100, 900, 0)));
        let again = both.then(out(&[FlowGap { at_us: 102_000, ..gap(0, 900, 850) }]));
        assert_eq!(again.gaps, [gap(100, 900, 850), gap(5000, 60, 0)], "told again, and known better");
    }
}
