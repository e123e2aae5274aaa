//! What a node can be told to do wrong, so that whoever tests networks sees that it would be noticed. The lab's own.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

/// Annotation of a node: faults, separated by commas.
///
/// * `no-gateway-announcements`: virtual machines that come to the node are not told where their gateway is
/// * `no-hand-over`: the ports of virtual machines that come to the node stay disabled, and those at the source as they were
const FAULTS: &str = "udn-conformance.io/lab-network-faults";

/// A fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    NoGatewayAnnouncements,
    NoHandOver,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::NoGatewayAnnouncements => "no-gateway-announcements",
            Self::NoHandOver => "no-hand-over",
        }
    }

    /// Whether `node` has it.
    pub(crate) fn is_on(self, node: &Node) -> bool {
        let faults = node.annotations().get(FAULTS);
        faults.is_some_and(|faults| faults.split(',').any(|fault| fault.trim() == self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_listed() {
        let mut node = Node::default();
        assert!(!Fault::NoHandOver.is_on(&node));
        node.annotations_mut().insert(FAULTS.into(), "no-hand-over, no-gateway-announcements".into());
        assert!(Fault::NoHandOver.is_on(&node) && Fault::NoGatewayAnnouncements.is_on(&node));
        node.annotations_mut().insert(FAULTS.into(), "no-hand-overs".into());
        assert!(!Fault::NoHandOver.is_on(&node));
    }
}
