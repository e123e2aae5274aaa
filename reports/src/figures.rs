//! Medians, quantiles and spreads of measured times. Rounds, not cells, decide when cells settle, so that times come in
//! clumps and now and then lie far out: what is made of them here holds where averages would not.

/// What the median of deviations is multiplied by to stand for a standard deviation, were the values normally distributed.
const NORMAL: f64 = 1.4826;

/// Values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted(Vec<u64>);

impl FromIterator<u64> for Sorted {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut values: Vec<u64> = values.into_iter().collect();
        values.sort_unstable();
        Self(values)
    }
}

impl Sorted {
    /// The values.
    #[must_use]
    pub fn values(&self) -> &[u64] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest value that at least this part of all (percent) does not exceed; `None` of no values.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.0.len() * percent.min(100)).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }

    /// The middle one, the lower of two.
    #[must_use]
    pub fn median(&self) -> Option<u64> {
        self.percentile(50)
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// How far values lie apart: the median of their distances from the median, times 1.4826. A few values far out do
    /// not change it.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // milliseconds are far below 2^52
    pub fn spread(&self) -> f64 {
        let Some(median) = self.median() else { return 0.0 };
        let distances: Self = self.0.iter().map(|value| value.abs_diff(median)).collect();
        distances.median().map_or(0.0, |distance| distance as f64 * NORMAL)
    }

    /// How many values lie in each of the classes with these upper bounds (included), and beyond the last.
    #[must_use]
    pub fn histogram(&self, bounds: &[u64]) -> Vec<usize> {
        let mut counts = vec![0; bounds.len() + 1];
        for value in &self.0 {
            counts[bounds.partition_point(|bound| bound < value)] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Sorted = [40, 10, 30, 20].into_iter().collect();
        let told: Vec<_> = [0, 25, 50, 75, 90, 100].map(|percent| values.percentile(percent).unwrap()).to_vec();
        assert_eq!(told, [10, 10, 20, 30, 40, 40]);
        assert_eq!((Sorted::default().median(), Sorted::default().max()), (None, None));
    }

    #[test]
    fn one_value_far_out_does_not_make_a_spread() {
        let calm: Sorted = [100, 101, 102, 103, 104].into_iter().collect();
        let outlier: Sorted = [100, 101, 102, 103, 30_000].into_iter().collect();
        assert!((calm.spread() - outlier.spread()).abs() < 0.001);
    }

    #[test]
    fn values_are_counted_by_class() {
        let values: Sorted = [1, 10, 11, 100, 101].into_iter().collect();
        assert_eq!(values.histogram(&[10, 100]), [2, 2, 1]);
    }
}
