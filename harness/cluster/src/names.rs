//! Labels, prefixes, paths: everything by which the objects of a run are told from all others.

use rand::RngExt;

/// The label that every object of a run carries.
pub const RUN_LABEL: &str = "udn-conformance.io/run";
/// The label that every object of a world carries, beside the run's.
pub const WORLD_LABEL: &str = "udn-conformance.io/world";
/// The label that says what a pod is for the harness: `external`, `node`.
pub const VANTAGE_LABEL: &str = "udn-conformance.io/vantage-point";
/// Its value for a client outside of the cluster.
pub const EXTERNAL: &str = "external";
/// The label on the external vantage point that says that services of type LoadBalancer get addresses which are reached
/// from there.
pub const LOAD_BALANCERS_LABEL: &str = "udn-conformance.io/load-balancers";
/// The annotation on it that says which addresses services may claim as `externalIPs`, CIDRs with commas between: the
/// underlay leads those to nodes, and nobody else has them.
pub const EXTERNAL_IPS_ANNOTATION: &str = "udn-conformance.io/external-ips";
/// The annotation on the external vantage point's pod that says under which name DNS knows its host.
pub const EXTERNAL_NAME: &str = "udn-conformance.io/external-name";
/// The API group of MetalLB, where it is installed.
pub(crate) const METALLB: &str = "metallb.io";
/// The field manager of server-side apply.
pub const FIELD_MANAGER: &str = "udn-conformance";
/// The directory in a pod that the agent lives in.
pub const AGENT_DIRECTORY: &str = "/udn";

/// Characters of a run id. Without vowels: no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz23456789";
/// Letters that an id may begin with: names must not begin with a digit everywhere.
const LETTERS: usize = 20;
/// Characters of a run id: 615,000 of them. Longer ones would not fit into names of networks, which are limited to 15.
const LENGTH: usize = 4;

/// A new run id: short, unlikely to be in use, fit to begin any Kubernetes name.
#[must_use]
pub fn new_run_id() -> String {
    let mut rng = rand::rng();
    let pick = |index: usize, rng: &mut rand::rngs::ThreadRng| {
        let among = if index == 0 { LETTERS } else { ALPHABET.len() };
        char::from(ALPHABET[rng.random_range(0..among)])
    };
    (0..LENGTH).map(|index| pick(index, &mut rng)).collect()
}

/// What the names of a world's namespaces and cluster-scoped objects begin with.
pub(crate) fn prefix(run: &str, instance: &str) -> String {
    format!("{run}{instance}")
}

/// The namespace of a run's host-network pods.
pub(crate) fn nodes_namespace(run: &str) -> String {
    format!("{run}-udn-nodes")
}

/// The label selector of a run, or of a world of it.
pub(crate) fn selector(run: &str, instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("{RUN_LABEL}={run},{WORLD_LABEL}={instance}"),
        None => format!("{RUN_LABEL}={run}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_can_begin_any_name() {
        for _ in 0..1000 {
            let id = new_run_id();
            assert_eq!(id.len(), LENGTH);
            assert!(id.starts_with(|c: char| c.is_ascii_lowercase()), "{id}");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{id}");
        }
        assert!(ALPHABET[..LETTERS].iter().all(u8::is_ascii_lowercase));
        assert!(ALPHABET[LETTERS..].iter().all(u8::is_ascii_digit));
    }
}
