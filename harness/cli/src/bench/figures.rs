//! A figure beside its target.

use std::fmt::Write;

use serde::{Serialize, Serializer};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Things a second.
    PerSecond,
}

/// Which of several measurements counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The one in the middle.
    Median,
    /// The largest.
    Worst,
}

/// On which side of the target a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    /// Not above.
    AtMost,
    /// Not below.
    AtLeast,
}

/// Something measured and what it is meant to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What.
    pub name: String,
    /// What the numbers count.
    pub unit: Unit,
    /// On which side of the target it has to be.
    pub bound: Bound,
    /// What it is meant to be.
    pub target: f64,
    /// What was measured, rounded to whole units; empty: nothing was.
    #[serde(rename = "measured", serialize_with = "picked")]
    pub samples: Samples,
    /// What a reader should know of it.
    pub note: String,
}

/// Measurements, and which of them counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Samples {
    /// As measured.
    pub values: Vec<f64>,
    /// Which counts.
    pub pick: Pick,
}

fn picked<S: Serializer>(samples: &Samples, serializer: S) -> Result<S::Ok, S::Error> {
    samples.value().map(f64::round).serialize(serializer)
}

impl Samples {
    /// Where the one in the middle counts.
    pub(crate) fn median(values: Vec<f64>) -> Self {
        Self { values, pick: Pick::Median }
    }

    /// Where the largest counts.
    pub(crate) fn worst(values: Vec<f64>) -> Self {
        Self { values, pick: Pick::Worst }
    }

    /// The one that counts; none where nothing was measured.
    pub(crate) fn value(&self) -> Option<f64> {
        match self.pick {
            Pick::Median => self.middle(),
            Pick::Worst => self.values.iter().copied().max_by(f64::total_cmp),
        }
    }

    /// The one in the middle; of an even number the mean of the two there.
    pub(crate) fn middle(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = sorted.get(sorted.len() / 2).copied()?;
        let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied()?;
        Some(f64::midpoint(lower, upper))
    }

    /// `median of 3: 640 ms to 702 ms`.
    pub(crate) fn spread(&self, unit: Unit) -> Option<String> {
        let least = self.values.iter().copied().min_by(f64::total_cmp)?;
        let most = self.values.iter().copied().max_by(f64::total_cmp)?;
        let count = self.values.len();
        match self.pick {
            _ if count < 2 => None,
            Pick::Median => Some(format!("median of {count}: {} to {}", unit.text(least), unit.text(most))),
            Pick::Worst => Some(format!("worst of {count}; median {}", unit.text(self.middle()?))),
        }
    }
}

impl Unit {
    /// A number for people.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value < 1_000.0 => format!("{value:.0} ms"),
            Self::Milliseconds => format!("{:.1} s", value / 1_000.0),
            Self::Bytes => format!("{:.2} MiB", value / f64::from(1 << 20)),
            Self::PerSecond => format!("{value:.0}/s"),
        }
    }
}

impl Figure {
    /// Whether the target is met; none where nothing was measured.
    pub(crate) fn met(&self) -> Option<bool> {
        self.samples.value().map(|value| match self.bound {
            Bound::AtMost => value <= self.target,
            Bound::AtLeast => value >= self.target,
        })
    }

    fn target_text(&self) -> String {
        let sign = match self.bound {
            Bound::AtMost => "≤",
            Bound::AtLeast => "≥",
        };
        format!("{sign} {}", self.unit.text(self.target))
    }

    fn notes(&self) -> String {
        let spread = self.samples.spread(self.unit);
        let parts: Vec<&str> = spread.iter().map(String::as_str).chain([self.note.as_str()]).collect();
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// All figures and where they were measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Benchmark {
    /// `release` or `debug`: how this program was built.
    pub build: &'static str,
    /// Processors that this program may use.
    pub processors: usize,
    /// Program, Kubernetes, OVN, Open vSwitch.
    pub versions: std::collections::BTreeMap<String, String>,
    /// What was measured.
    pub figures: Vec<Figure>,
}

impl Benchmark {
    /// For people: a line each.
    pub(crate) fn text(&self) -> String {
        let width = |cell: &dyn Fn(&Figure) -> String| {
            self.figures.iter().map(|figure| cell(figure).chars().count()).max().unwrap_or_default()
        };
        let measured = |figure: &Figure| {
            figure.samples.value().map_or_else(|| "not measured".to_owned(), |value| figure.unit.text(value))
        };
        let name_width = width(&|figure| figure.name.clone());
        let target_width = width(&Figure::target_text).max("target".len());
        let value_width = width(&measured).max("measured".len());
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(text, "       {:name_width$}  {:>target_width$}  {:>value_width$}", "", "target", "measured");
        for figure in &self.figures {
            let mark = match figure.met() {
                Some(true) => "ok",
                Some(false) => "missed",
                None => "",
            };
            let line = format!(
                "{mark:>6} {:name_width$}  {:>target_width$}  {:>value_width$}  {}",
                figure.name,
                figure.target_text(),
                measured(figure),
                figure.notes()
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let plural = if self.processors == 1 { "" } else { "s" };
        let _ = writeln!(text, "{} build, {} processor{plural}, {}", self.build, self.processors, versions.join(", "));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(bound: Bound, target: f64, samples: Samples) -> Figure {
        Figure { name: "lab up".into(), unit: Unit::Milliseconds, bound, target, samples, note: String::new() }
    }

    #[test]
    fn the_middle_counts_or_the_worst() {
        assert_eq!(Samples::median(vec![3.0, 1.0, 2.0]).value(), Some(2.0));
        assert_eq!(Samples::median(vec![4.0, 1.0, 2.0, 3.0]).value(), Some(2.5));
        assert_eq!(Samples::worst(vec![3.0, 1.0, 2.0]).value(), Some(3.0));
        assert_eq!(Samples::median(vec![]).value(), None);
    }

    #[test]
    fn a_target_is_met_on_its_side() {
        let at = |bound, value| figure(bound, 10.0, Samples::median(vec![value])).met();
        assert_eq!((at(Bound::AtMost, 10.0), at(Bound::AtMost, 10.1)), (Some(true), Some(false)));
        assert_eq!((at(Bound::AtLeast, 10.0), at(Bound::AtLeast, 9.9)), (Some(true), Some(false)));
        assert_eq!(figure(Bound::AtMost, 10.0, Samples::worst(vec![])).met(), None);
    }

    #[test]
    fn target_and_figure_stand_side_by_side() {
        let mut other = figure(Bound::AtLeast, 2000.0, Samples::median(vec![1999.0]));
        (other.name, other.unit, other.note) = ("probes".into(), Unit::PerSecond, "10 of 10 open".into());
        let figures = vec![figure(Bound::AtMost, 5000.0, Samples::median(vec![700.0, 640.0, 1500.0])), other];
        let versions = [("OVN".to_owned(), "25.03.0".to_owned())].into();
        let text = Benchmark { build: "release", processors: 2, versions, figures }.text();
        let expected = "                 target  measured
    ok lab up   ≤ 5.0 s    700 ms  median of 3: 640 ms to 1.5 s
missed probes  ≥ 2000/s    1999/s  10 of 10 open
release build, 2 processors, OVN 25.03.0
";
        assert_eq!(text, expected);
    }

    #[test]
    fn machines_get_target_and_figure_in_one_unit() {
        let json = serde_json::to_value(figure(Bound::AtMost, 5000.0, Samples::median(vec![640.4]))).unwrap();
        let expected = serde_json::json!({"name": "lab up", "unit": "milliseconds", "bound": "at-most",
            "target": 5000.0, "measured": 640.0, "note": ""});
        assert_eq!(json, expected);
    }
}
