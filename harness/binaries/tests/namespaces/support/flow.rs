//! Begins, watches and ends flows.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use udn_agent::protocol::{Body, Flow, FlowReport, FlowResult, Op, Transport};

use super::agent::Agent;

/// Nothing waited for here takes longer on any machine that is fit for tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A flow with the usual settings.
pub(crate) fn flow(transport: Transport, to: SocketAddr) -> Flow {
    let (from, source_port) = (None, None);
    Flow { transport, to, from, source_port, period_us: 5_000, connect_timeout_ms: 5_000, limit_ms: 60_000 }
}

/// Microseconds since 1970.
pub(crate) fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_micros()).expect("64 bits")
}

impl Agent {
    /// Begins a flow; gives its number.
    pub(crate) fn begin(&mut self, flow: Flow) -> u64 {
        let requests = self.requests([Op::Flow(flow)]);
        self.write(&requests);
        requests[0].id
    }

    /// How a running flow is doing.
    pub(crate) fn state(&mut self, flow: u64) -> FlowReport {
        match self.ask(Op::FlowState { flow }) {
            Body::FlowState(report) => *report,
            other => panic!("flow {flow} does not run: {other:?}"),
        }
    }

    /// Waits until a running flow is as wanted.
    pub(crate) fn await_state(&mut self, flow: u64, what: &str, is: impl Fn(&FlowReport) -> bool) -> FlowReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.state(flow);
            if is(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "not {what} in time: {report:?}");
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a flow has this many more replies than now.
    pub(crate) fn await_replies(&mut self, flow: u64, more: u64) -> FlowReport {
        let received = self.state(flow).received;
        self.await_state(flow, "answered", |report| report.received >= received + more)
    }

    /// Ends flows; gives how they went, in this order.
    pub(crate) fn end(&mut self, flows: &[u64]) -> Vec<FlowResult> {
        let requests = self.requests(flows.iter().map(|flow| Op::EndFlow { flow: *flow }));
        self.write(&requests);
        self.results(flows)
    }

    /// Waits for flows to end; gives how they went, in this order.
    pub(crate) fn results(&mut self, flows: &[u64]) -> Vec<FlowResult> {
        let mut results: Vec<Option<FlowResult>> = flows.iter().map(|_| None).collect();
        while results.iter().any(Option::is_none) {
            let message = self.message();
            match message.body {
                Body::Flow(result) => {
                    let position = flows.iter().position(|flow| *flow == message.id).expect("one of these flows");
                    assert!(results[position].replace(result).is_none(), "a flow ends once");
                }
                Body::Done => {}
                other => panic!("not the end of a flow: {other:?}"),
            }
        }
        // The answers to the requests that ended them may come later than the results.
        let rest = self.requests([Op::Ping]);
        self.write(&rest);
        while self.message().id != rest[0].id {}
        results.into_iter().flatten().collect()
    }

    /// Runs a flow that ends by itself.
    pub(crate) fn run_flow(&mut self, wanted: Flow) -> FlowResult {
        let flow = self.begin(wanted);
        self.results(&[flow]).remove(0)
    }
}
