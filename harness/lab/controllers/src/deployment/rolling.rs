//! The arithmetic of rolling updates, without any API.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What the arithmetic needs to know of a replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Replicas asked for.
    pub(crate) replicas: i32,
    /// Replicas available.
    pub(crate) available: i32,
}

/// How far a rolling update may stray from the wanted number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Pods more than wanted at any time.
    pub(crate) surge: i32,
    /// Pods fewer than wanted that may be unavailable.
    pub(crate) unavailable: i32,
}

impl Bounds {
    /// Resolves percentages: surge rounds up, unavailability down, and they are never both zero, since nothing could
    /// move then. Absent values are 25 %, the API's default.
    pub(crate) fn resolve(surge: Option<&IntOrString>, unavailable: Option<&IntOrString>, wanted: i32) -> Self {
        let quarter = IntOrString::String("25%".to_owned());
        let surge = scaled(surge.unwrap_or(&quarter), wanted, true);
        let unavailable = scaled(unavailable.unwrap_or(&quarter), wanted, false);
        if surge == 0 && unavailable == 0 {
            return Self { surge: 0, unavailable: 1 };
        }
        Self { surge, unavailable: unavailable.min(wanted.max(1)) }
    }
}

/// A number, or a percentage of `total`; what cannot be read counts as 0.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim().trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.max(0) * i64::from(total);
            let share = if round_up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

/// How many replicas the new set may have now: as many as wanted, but no more pods in total than the surge allows.
pub(crate) fn new_replicas(new: i32, old_total: i32, wanted: i32, bounds: Bounds) -> i32 {
    if new >= wanted {
        return wanted;
    }
    let room = wanted + bounds.surge - (new + old_total);
    if room <= 0 { new } else { new + room.min(wanted - new) }
}

/// How many replicas each old set (oldest first) keeps now: unavailable pods go first, since they serve nobody, then
/// available ones as long as enough remain.
pub(crate) fn old_replicas(old: &[Share], new: Share, wanted: i32, bounds: Bounds) -> Vec<i32> {
    let mut keep: Vec<i32> = old.iter().map(|share| share.replicas).collect();
    let total: i32 = keep.iter().sum::<i32>() + new.replicas;
    let needed = wanted - bounds.unavailable;
    let mut removable = total - needed - (new.replicas - new.available);
    if removable <= 0 {
        return keep;
    }
    for (share, keep) in old.iter().zip(&mut keep) {
        let surplus = (*keep - share.available).max(0).min(removable);
        *keep -= surplus;
        removable -= surplus;
    }
    let available: i32 =
        old.iter().zip(&keep).map(|(share, keep)| share.available.min(*keep)).sum::<i32>() + new.available;
    let mut removable = (available - needed).max(0).min(removable);
    for keep in &mut keep {
        let surplus = (*keep).min(removable);
        *keep -= surplus;
        removable -= surplus;
    }
    keep
}

/// Spreads a change of the wanted number over the sets of a rollout under way, in proportion to their sizes. `before`
/// is the number of pods that was allowed when each set was last scaled, `allowed` the one now. The largest sets come
/// first and take what rounding leaves.
pub(crate) fn proportional(sizes: &[i32], before: &[i32], allowed: i32) -> Vec<i32> {
    let total: i32 = sizes.iter().sum();
    let to_add = allowed - total;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(sizes[*index]));
    let mut result = sizes.to_vec();
    let mut added = 0;
    for index in &order {
        let size = sizes[*index];
        if size == 0 || to_add == 0 || before[*index] <= 0 {
            continue;
        }
        let ideal = (f64::from(size) * f64::from(allowed) / f64::from(before[*index])).round() as i32 - size;
        let left = to_add - added;
        let share = if to_add > 0 { ideal.max(0).min(left) } else { ideal.min(0).max(left) };
        result[*index] += share;
        added += share;
    }
    if let Some(largest) = order.first() {
        result[*largest] = (result[*largest] + to_add - added).max(0);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(text: &str) -> IntOrString {
        IntOrString::String(text.into())
    }

    #[test]
    fn percentages_round_in_the_safe_direction() {
        let bounds = Bounds::resolve(Some(&percent("25%")), Some(&percent("25%")), 10);
        assert_eq!(bounds, Bounds { surge: 3, unavailable: 2 });
        let defaults = Bounds::resolve(None, None, 2);
        assert_eq!(defaults, Bounds { surge: 1, unavailable: 0 });
        let stuck = Bounds::resolve(Some(&IntOrString::Int(0)), Some(&percent("1%")), 10);
        assert_eq!(stuck, Bounds { surge: 0, unavailable: 1 });
    }

    #[test]
    fn the_new_set_grows_within_the_surge() {
        let bounds = Bounds { surge: 1, unavailable: 0 };
        assert_eq!(new_replicas(0, 3, 3, bounds), 1);
        assert_eq!(new_replicas(1, 3, 3, bounds), 1);
        assert_eq!(new_replicas(1, 2, 3, bounds), 2);
        assert_eq!(new_replicas(5, 0, 3, bounds), 3, "scaled down");
        assert_eq!(new_replicas(0, 0, 3, bounds), 3, "first rollout");
    }

    #[test]
    fn old_pods_go_only_when_enough_are_available() {
        let bounds = Bounds { surge: 1, unavailable: 0 };
        let new = |replicas, available| Share { replicas, available };
        let old = [Share { replicas: 3, available: 3 }];
        assert_eq!(old_replicas(&old, new(1, 0), 3, bounds), [3]);
        assert_eq!(old_replicas(&old, new(1, 1), 3, bounds), [2]);
        let bounds = Bounds { surge: 0, unavailable: 1 };
        assert_eq!(old_replicas(&old, new(0, 0), 3, bounds), [2]);
    }

    #[test]
    fn broken_old_pods_go_first() {
        let bounds = Bounds { surge: 1, unavailable: 1 };
        let old = [Share { replicas: 2, available: 2 }, Share { replicas: 2, available: 0 }];
        assert_eq!(old_replicas(&old, Share { replicas: 0, available: 0 }, 3, bounds), [2, 0]);
    }

    #[test]
    fn a_rollout_always_ends_and_keeps_its_bounds() {
        for wanted in 1..12 {
            for bounds in [
                Bounds { surge: 1, unavailable: 0 },
                Bounds { surge: 0, unavailable: 1 },
                Bounds { surge: 3, unavailable: 2 },
            ] {
                let (mut old, mut new) =
                    (Share { replicas: wanted, available: wanted }, Share { replicas: 0, available: 0 });
                let mut rounds = 0;
                while (old.replicas, new.available) != (0, wanted) {
                    new.replicas = new_replicas(new.replicas, old.replicas, wanted, bounds);
                    assert!(new.replicas + old.replicas <= wanted + bounds.surge);
                    old.replicas = old_replicas(&[old], new, wanted, bounds)[0];
                    old.available = old.available.min(old.replicas);
                    assert!(new.available + old.available >= wanted - bounds.unavailable);
                    // One more pod gets ready in every round.
                    new.available = (new.available + 1).min(new.replicas);
                    rounds += 1;
                    assert!(rounds < 100, "wanted {wanted}, {bounds:?}: {old:?} {new:?}");
                }
            }
        }
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_is_shared() {
        // 10 wanted, surge 3: 8 old and 5 new; now 20 wanted: 23 allowed.
        assert_eq!(proportional(&[8, 5], &[13, 13], 23), [14, 9]);
        assert_eq!(proportional(&[8, 5], &[13, 13], 8).iter().sum::<i32>(), 8);
        assert_eq!(proportional(&[3, 0], &[3, 3], 5), [5, 0]);
    }
}
