//! Commands that repeat a probe by hand.

use std::net::SocketAddr;

use udn_model::cell::VantagePoint;
use udn_model::flow::{BULK_BYTES_PER_SECOND, FlowKind};
use udn_model::world::PROBE_CONTAINER;
use udn_runner::cluster::{Lookup, Over, Shot, node_identity};

use super::KubeWorld;
use crate::lookups::{self, Names};
use crate::names::{AGENT_DIRECTORY, nodes_namespace};

impl KubeWorld {
    /// What to type to send a shot again; `None` where there is no shell to type it in.
    pub(super) fn command(&self, from: &VantagePoint, shot: &Shot) -> Option<String> {
        let (namespace, pod) = match from {
            // There is no shell in a guest.
            VantagePoint::Pod(pod) if self.vms.get(pod).is_some() => return None,
            VantagePoint::Pod(pod) => self.key_of(pod),
            VantagePoint::Node(slot) => (nodes_namespace(&self.run), node_identity(*slot)),
            VantagePoint::External => return None,
        };
        let to = match shot.port {
            Some(port) => SocketAddr::new(shot.to, port).to_string(),
            None => shot.to.to_string(),
        };
        let (transport, timeout) = (shot.transport, shot.timeout.as_millis());
        let agent = format!("kubectl exec -n {namespace} {pod} -c {PROBE_CONTAINER} -- {AGENT_DIRECTORY}/agent");
        match shot.over {
            Over::New => {}
            Over::Flow(FlowKind::Frames) => return Some(format!("{agent} flow {transport} {to} --for-ms 10000")),
            Over::Flow(FlowKind::Bulk) => {
                let rate = BULK_BYTES_PER_SECOND;
                return Some(format!("{agent} bulk {to} --bytes-per-second {rate} --for-ms 10000"));
            }
        }
        if let Some(Lookup::Question(name, family)) = &shot.lookup {
            let names = Names { naming: &self.naming, domain: self.domain.get()?, external: self.dns.external() };
            let (record, name) = (lookups::record_word(*family), names.text(name)?);
            return Some(format!("{agent} resolve {transport} {record} {name} --server {to} --timeout-ms {timeout}"));
        }
        Some(format!("{agent} probe {transport} {to} --timeout-ms {timeout}"))
    }
}
