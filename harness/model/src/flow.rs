//! Flows: connections that go on from phase to phase, while something happens to their ends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The TCP port that returns what it is sent, in pods that declare it: flows over TCP need one. Flows over UDP go to any
/// port that introduces itself.
pub const FLOW_PORT: u16 = 7007;

/// How a flow fared, as its sender counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFigures {
    /// Frames sent since the flow began; one every ten milliseconds.
    pub sent: u64,
    /// Of these, how many came back.
    pub received: u64,
    /// How many did not, though a later one did. TCP: none, else the stream is broken.
    pub lost: u64,
    /// TCP segments sent again.
    pub retransmits: u32,
    /// The longest time without a reply in this phase, milliseconds: from the last reply before it to the first one after
    /// it, or to the end of the phase. What is shorter than 50 ms is not counted.
    pub outage_ms: u64,
}

impl FlowFigures {
    /// The figures of a phase of which `self` tells the earlier part.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        Self { outage_ms: self.outage_ms.max(later.outage_ms), ..later }
    }
}

impl fmt::Display for FlowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, lost, retransmits, outage_ms } = self;
        write!(f, "{sent} frames sent since it began, {received} came back")?;
        if *lost > 0 {
            write!(f, ", {lost} were lost")?;
        }
        if *retransmits > 0 {
            write!(f, ", {retransmits} segments sent again")?;
        }
        match outage_ms {
            0 => write!(f, "; no outage in this phase"),
            ms => write!(f, "; longest outage in this phase {ms} ms"),
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
}
