//! What an agent says of a flow, whatever it carries.

use std::net::SocketAddr;

use udn_agent::protocol::{Body, BulkReport, BulkResult, FlowEnd, FlowReport, FlowResult, Gap, Stall, TcpFigures};

/// A report of an agent.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Frames(Box<FlowReport>),
    Bulk(Box<BulkReport>),
}

/// What is said of either kind. Times are those of the agent.
pub(super) struct Common<'a> {
    pub(super) started_us: u64,
    pub(super) took_us: u64,
    pub(super) local: Option<SocketAddr>,
    /// Whom it reached, where it was established.
    pub(super) identity: Option<&'a str>,
    pub(super) seen_as: Option<SocketAddr>,
    /// Grows whenever something came through.
    pub(super) progress: u64,
    pub(super) rtt_us: u64,
    pub(super) gap_over_us: u64,
    pub(super) gaps: &'a [Gap],
    /// Since something came through last.
    pub(super) silent_us: u64,
    pub(super) stalls: &'a [Stall],
    pub(super) retransmits: u32,
}

impl Said {
    /// A report of a flow that runs; what the agent said instead where it is none.
    pub(super) fn of_state(body: Body) -> Result<Self, Box<Body>> {
        match body {
            Body::FlowState(report) => Ok(Self::Frames(report)),
            Body::BulkState(report) => Ok(Self::Bulk(report)),
            other => Err(Box::new(other)),
        }
    }

    /// Why a flow ended, with its last report; what the agent said instead where it is none.
    pub(super) fn of_end(body: Body) -> Result<(FlowEnd, Self), Box<Body>> {
        match body {
            Body::Flow(FlowResult { end, report }) => Ok((end, Self::Frames(report))),
            Body::Bulk(BulkResult { end, report }) => Ok((end, Self::Bulk(report))),
            other => Err(Box::new(other)),
        }
    }

    pub(super) fn common(&self) -> Common<'_> {
        let retransmits = |tcp: Option<TcpFigures>| tcp.map_or(0, |tcp| tcp.retransmits);
        match self {
            Self::Frames(report) => Common {
                started_us: report.started_us,
                took_us: report.took_us,
                local: report.local,
                identity: report.identity.as_deref(),
                seen_as: report.seen_as,
                progress: report.received,
                rtt_us: report.rtt.map_or(0, |rtt| rtt.median_us),
                gap_over_us: report.gap_over_us,
                gaps: &report.gaps,
                silent_us: report.since_last_reply_us,
                stalls: &report.stalls,
                retransmits: retransmits(report.tcp),
            },
            Self::Bulk(report) => Common {
                started_us: report.started_us,
                took_us: report.took_us,
                local: report.local,
                identity: report.identity.as_deref(),
                seen_as: report.seen_as,
                progress: report.bytes,
                rtt_us: report.tcp.map_or(0, |tcp| tcp.rtt_us.into()),
                gap_over_us: report.gap_over_us,
                gaps: &report.gaps,
                silent_us: report.since_last_byte_us,
                stalls: &report.stalls,
                retransmits: retransmits(report.tcp),
            },
        }
    }
}
