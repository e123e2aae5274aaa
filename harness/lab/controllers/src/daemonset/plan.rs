//! Which daemon pods to create and delete, decided without any API.

/// What matters of one pod of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Daemon {
    /// Position in the caller's list.
    pub(super) index: usize,
    pub(super) node: String,
    /// Has the present template.
    pub(super) updated: bool,
    pub(super) finished: bool,
    pub(super) terminating: bool,
    pub(super) available: bool,
}

/// What a node is to the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: String,
    /// A pod is to be there.
    pub(super) wanted: bool,
    /// A pod that is there may stay.
    pub(super) may_stay: bool,
}

/// Nodes that get a pod, pods (by index) that go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<usize>,
}

/// One pod per wanted node, none elsewhere; finished pods and duplicates (the later of the list) go.
pub(super) fn place(places: &[Place], daemons: &[Daemon]) -> Plan {
    let mut plan = Plan::default();
    for place in places {
        let mut here = daemons.iter().filter(|daemon| daemon.node == place.node).peekable();
        if place.wanted && here.peek().is_none() {
            plan.create.push(place.node.clone());
            continue;
        }
        let mut kept = false;
        for daemon in here.filter(|daemon| !daemon.terminating) {
            if !place.may_stay || daemon.finished || kept {
                plan.delete.push(daemon.index);
            } else {
                kept = true;
            }
        }
    }
    plan
}

/// Pods of an older template that may go now: those that serve nobody at once, others as long as at most
/// `max_unavailable` wanted nodes are without a pod that serves.
pub(super) fn replace(places: &[Place], daemons: &[Daemon], max_unavailable: usize) -> Vec<usize> {
    let mut delete = Vec::new();
    let mut candidates = Vec::new();
    let mut unavailable = 0;
    for place in places.iter().filter(|place| place.wanted) {
        let mut here = daemons.iter().filter(|daemon| daemon.node == place.node && !daemon.terminating);
        match here.next() {
            None => unavailable += 1,
            Some(daemon) if !daemon.available => {
                unavailable += 1;
                if !daemon.updated {
                    delete.push(daemon.index);
                }
            }
            Some(daemon) if !daemon.updated => candidates.push(daemon.index),
            Some(_) => {}
        }
    }
    delete.extend(candidates.into_iter().take(max_unavailable.saturating_sub(unavailable)));
    delete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_on(node: &str, wanted: bool, may_stay: bool) -> Place {
        Place { node: node.into(), wanted, may_stay }
    }

    fn daemon(index: usize, node: &str) -> Daemon {
        Daemon { index, node: node.into(), updated: true, finished: false, terminating: false, available: true }
    }

    #[test]
    fn one_pod_on_every_wanted_node_and_none_elsewhere() {
        let places = [place_on("a", true, true), place_on("b", true, true), place_on("c", false, false)];
        let daemons = [daemon(0, "a"), daemon(1, "a"), daemon(2, "c")];
        assert_eq!(place(&places, &daemons), Plan { create: vec!["b".into()], delete: vec![1, 2] });
    }

    #[test]
    fn a_terminating_pod_holds_its_place() {
        let leaving = Daemon { terminating: true, ..daemon(0, "a") };
        assert_eq!(place(&[place_on("a", true, true)], &[leaving]), Plan::default());
    }

    #[test]
    fn a_tainted_node_keeps_its_pod_but_gets_none() {
        let places = [place_on("a", false, true), place_on("b", false, true)];
        assert_eq!(place(&places, &[daemon(0, "a")]), Plan::default());
    }

    #[test]
    fn updates_keep_to_what_may_be_unavailable() {
        let places = [place_on("a", true, true), place_on("b", true, true), place_on("c", true, true)];
        let old = |index, node| Daemon { updated: false, ..daemon(index, node) };
        assert_eq!(replace(&places, &[old(0, "a"), old(1, "b"), old(2, "c")], 1), [0]);
        let broken = Daemon { available: false, ..old(1, "b") };
        assert_eq!(replace(&places, &[old(0, "a"), broken, old(2, "c")], 1), [1]);
        let starting = Daemon { available: false, ..daemon(0, "a") };
        assert_eq!(replace(&places, &[starting, old(1, "b"), old(2, "c")], 1), Vec::<usize>::new());
        assert_eq!(replace(&places, &[old(0, "a"), old(1, "b"), old(2, "c")], 2), [0, 1]);
    }
}
