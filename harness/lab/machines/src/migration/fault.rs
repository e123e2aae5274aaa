//! What goes wrong with a migration on purpose: the annotation `lab.udn-conformance.io/fail` on it, or on the node that it
//! goes to, for migrations that somebody else asks for. Each does the real thing.

use kube::ResourceExt;
use udn_api::kubevirt::names;

use crate::error::Error;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The target's emulator is killed before the guest comes: the guest stays where it was.
    TargetNeverReady,
    /// The source's emulator is killed before the guest has left: the guest is lost.
    SourceKilled,
    /// The migration is called off when only the switch-over is left: the guest stays where it was.
    Aborted,
    /// Neither emulator nor guest announces the guest at its new place.
    AnnouncementSuppressed,
    /// The target's tap is on a bridge without a way to the network.
    WrongBridge,
}

const WORDS: [(&str, Fault); 5] = [
    ("target-never-ready", Fault::TargetNeverReady),
    ("source-killed", Fault::SourceKilled),
    ("aborted", Fault::Aborted),
    ("announcement-suppressed", Fault::AnnouncementSuppressed),
    ("wrong-bridge", Fault::WrongBridge),
];

/// The fault that a migration, or a node for all that come to it, asks for.
///
/// # Errors
/// When it asks for one that there is not.
pub(crate) fn of(object: &impl ResourceExt) -> Result<Option<Fault>, Error> {
    let Some(word) = object.annotations().get(names::LAB_FAIL) else { return Ok(None) };
    match WORDS.iter().find(|(known, _)| known == word) {
        Some((_, fault)) => Ok(Some(*fault)),
        None => Err(Error::Unsupported {
            asked: format!("{} is {word:?}", names::LAB_FAIL),
            has: "the faults target-never-ready, source-killed, aborted, announcement-suppressed and wrong-bridge",
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use udn_api::kubevirt::VirtualMachineInstanceMigration;

    use super::*;

    #[test]
    fn a_node_asks_for_what_comes_to_it() {
        let mut node = Node::default();
        assert_eq!(of(&node).unwrap(), None);
        node.annotations_mut().insert(names::LAB_FAIL.into(), "announcement-suppressed".into());
        assert_eq!(of(&node).unwrap(), Some(Fault::AnnouncementSuppressed));
    }

    #[test]
    fn an_unknown_fault_is_refused() {
        let mut migration = VirtualMachineInstanceMigration::new("m", Default::default());
        assert_eq!(of(&migration).unwrap(), None);
        migration.annotations_mut().insert(names::LAB_FAIL.into(), "wrong-bridge".into());
        assert_eq!(of(&migration).unwrap(), Some(Fault::WrongBridge));
        migration.annotations_mut().insert(names::LAB_FAIL.into(), "wrong".into());
        assert!(of(&migration).unwrap_err().to_string().contains("target-never-ready"));
    }
}
