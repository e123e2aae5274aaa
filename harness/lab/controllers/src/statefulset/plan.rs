//! What to do next with the pods of a stateful set, decided without any API.

/// What matters of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) ordinal: i32,
    /// Name of its revision.
    pub(crate) revision: String,
    /// Succeeded or failed: is replaced.
    pub(crate) finished: bool,
    pub(crate) terminating: bool,
    /// Running and ready.
    pub(crate) ready: bool,
    /// Ready for long enough.
    pub(crate) available: bool,
}

impl Member {
    fn healthy(&self) -> bool {
        self.available && !self.terminating
    }
}

/// What matters of the set.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// First ordinal.
    pub(crate) start: i32,
    pub(crate) replicas: i32,
    /// One pod after the other (OrderedReady), else all at once (Parallel).
    pub(crate) ordered: bool,
    /// Pods are replaced by us (RollingUpdate), else by the user (OnDelete).
    pub(crate) rolling: bool,
    /// Ordinals below `start + partition` stay at the current revision.
    pub(crate) partition: i32,
    pub(crate) current: String,
    pub(crate) update: String,
}

impl Wish {
    fn end(&self) -> i32 {
        self.start.saturating_add(self.replicas)
    }

    /// The revision that a new pod gets.
    fn revision_for(&self, ordinal: i32) -> &str {
        let stays = self.rolling && ordinal < self.start.saturating_add(self.partition);
        if stays { &self.current } else { &self.update }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Create the pod of this ordinal from this revision.
    Create(i32, String),
    /// Delete the pod of this ordinal.
    Delete(i32),
}

/// Everything that may be done now. An ordered set gets at most one step, and none while a pod that comes before is not
/// available or is terminating.
pub(crate) fn plan(wish: &Wish, members: &[Member]) -> Vec<Step> {
    let find = |ordinal: i32| members.iter().find(|member| member.ordinal == ordinal);
    let mut steps = Vec::new();
    for ordinal in wish.start..wish.end() {
        let step = match find(ordinal) {
            None => Some(Step::Create(ordinal, wish.revision_for(ordinal).to_owned())),
            Some(member) if member.finished && !member.terminating => Some(Step::Delete(ordinal)),
            Some(_) => None,
        };
        let waits = find(ordinal).is_none_or(|member| !member.healthy());
        steps.extend(step);
        if wish.ordered && waits {
            return steps;
        }
    }
    let mut condemned: Vec<&Member> =
        members.iter().filter(|member| !(wish.start..wish.end()).contains(&member.ordinal)).collect();
    condemned.sort_by_key(|member| std::cmp::Reverse(member.ordinal));
    // Among the condemned, one that is not healthy may go although it is not ready; it must not hold up the others.
    let first_unhealthy = condemned.iter().filter(|member| !member.healthy()).map(|member| member.ordinal).min();
    for member in condemned {
        if member.terminating {
            if wish.ordered {
                return steps;
            }
            continue;
        }
        if wish.ordered && !member.healthy() && first_unhealthy != Some(member.ordinal) {
            return steps;
        }
        steps.push(Step::Delete(member.ordinal));
        if wish.ordered {
            return steps;
        }
    }
    if wish.rolling {
        steps.extend(replace(wish, members));
    }
    steps
}

/// The next pod to be replaced by one of the new revision: highest ordinal first, one at a time, each only after those
/// above it are healthy.
fn replace(wish: &Wish, members: &[Member]) -> Option<Step> {
    let first = wish.start.saturating_add(wish.partition.max(0));
    for ordinal in (first..wish.end()).rev() {
        let member = members.iter().find(|member| member.ordinal == ordinal)?;
        if member.revision != wish.update && !member.terminating {
            return (!member.finished).then_some(Step::Delete(ordinal));
        }
        if !member.healthy() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(replicas: i32) -> Wish {
        Wish { start: 0, replicas, ordered: true, rolling: true, partition: 0, current: "a".into(), update: "a".into() }
    }

    fn healthy(ordinal: i32) -> Member {
        Member { ordinal, revision: "a".into(), finished: false, terminating: false, ready: true, available: true }
    }

    fn starting(ordinal: i32) -> Member {
        Member { ready: false, available: false, ..healthy(ordinal) }
    }

    fn create(ordinal: i32) -> Step {
        Step::Create(ordinal, "a".into())
    }

    #[test]
    fn ordered_pods_start_one_after_the_other() {
        assert_eq!(plan(&wish(3), &[]), [create(0)]);
        assert_eq!(plan(&wish(3), &[starting(0)]), []);
        assert_eq!(plan(&wish(3), &[healthy(0)]), [create(1)]);
        assert_eq!(plan(&wish(3), &[healthy(0), healthy(1), healthy(2)]), []);
    }

    #[test]
    fn parallel_pods_start_at_once() {
        let wish = Wish { ordered: false, ..wish(3) };
        assert_eq!(plan(&wish, &[starting(1)]), [create(0), create(2)]);
    }

    #[test]
    fn the_highest_goes_first_and_waits_for_the_one_before() {
        let members = [healthy(0), healthy(1), healthy(2)];
        assert_eq!(plan(&wish(1), &members), [Step::Delete(2)]);
        let leaving = Member { terminating: true, ..healthy(2) };
        assert_eq!(plan(&wish(1), &[healthy(0), healthy(1), leaving.clone()]), []);
        assert_eq!(plan(&wish(1), &[starting(0), healthy(1), healthy(2)]), [], "waits for the lower ones");
        let parallel = Wish { ordered: false, ..wish(1) };
        assert_eq!(plan(&parallel, &[healthy(0), healthy(1), leaving]), [Step::Delete(1)]);
    }

    #[test]
    fn a_finished_pod_is_replaced() {
        let failed = Member { finished: true, ready: false, available: false, ..healthy(0) };
        assert_eq!(plan(&wish(2), &[failed]), [Step::Delete(0)]);
    }

    #[test]
    fn an_update_goes_from_the_highest_down_one_at_a_time() {
        let wish = Wish { update: "b".into(), ..wish(3) };
        let new = |ordinal| Member { revision: "b".into(), ..healthy(ordinal) };
        assert_eq!(plan(&wish, &[healthy(0), healthy(1), healthy(2)]), [Step::Delete(2)]);
        assert_eq!(plan(&wish, &[healthy(0), healthy(1)]), [Step::Create(2, "b".into())]);
        let starting = Member { ready: false, available: false, ..new(2) };
        assert_eq!(plan(&wish, &[healthy(0), healthy(1), starting]), []);
        assert_eq!(plan(&wish, &[healthy(0), healthy(1), new(2)]), [Step::Delete(1)]);
        assert_eq!(plan(&wish, &[new(0), new(1), new(2)]), []);
    }

    #[test]
    fn partition_and_on_delete_hold_pods_back() {
        let partition = Wish { update: "b".into(), partition: 2, ..wish(3) };
        let new = Member { revision: "b".into(), ..healthy(2) };
        assert_eq!(plan(&partition, &[healthy(0), healthy(1), new]), []);
        assert_eq!(plan(&partition, &[healthy(0)]), [Step::Create(1, "a".into())]);
        let by_hand = Wish { update: "b".into(), rolling: false, ..wish(2) };
        assert_eq!(plan(&by_hand, &[healthy(0), healthy(1)]), []);
        assert_eq!(plan(&by_hand, &[healthy(0)]), [Step::Create(1, "b".into())]);
    }

    #[test]
    fn ordinals_may_start_elsewhere() {
        let wish = Wish { start: 5, ..wish(2) };
        assert_eq!(plan(&wish, &[healthy(5)]), [create(6)]);
        assert_eq!(plan(&wish, &[healthy(0), healthy(5), healthy(6)]), [Step::Delete(0)]);
    }
}
