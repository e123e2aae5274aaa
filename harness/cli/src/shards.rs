//! `--shard I/N`: one of N parts of a run, of about the same length. Every part knows the others without asking them: which
//! scenarios belong together and how long they take is the same everywhere.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use udn_model::plan::PlannedScenario;

/// Seconds that scenarios took.
const DURATIONS: &str = include_str!("durations.yaml");
/// Seconds that a scenario without a recorded time takes.
const USUAL: u32 = 20;
/// Most parts of a run.
const MOST: usize = 1_000;

/// Which part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// From 1.
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((index, of)) if (1..=of).contains(&index) && of <= MOST => Ok(Self { index, of }),
            _ => Err(format!("write I/N, the I-th of N parts, as 1/3: I from 1 to N, N at most {MOST}")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl Shard {
    /// Keeps the scenarios of this part. Those of one world stay together: making it is the longer half of many.
    pub(crate) fn keep(self, scenarios: &mut Vec<PlannedScenario>) {
        let mut worlds: BTreeMap<String, u32> = BTreeMap::new();
        for planned in &*scenarios {
            *worlds.entry(world(planned)).or_default() += seconds(&planned.suite, &planned.scenario.name);
        }
        let shards = divide(worlds, self.of);
        scenarios.retain(|planned| shards.get(&world(planned)) == Some(&self.index));
    }
}

fn world(planned: &PlannedScenario) -> String {
    planned.scenario.world.name.clone()
}

fn seconds(suite: &str, scenario: &str) -> u32 {
    let recorded = DURATIONS
        .lines()
        .find_map(|line| line.strip_prefix(suite)?.strip_prefix("::")?.strip_prefix(scenario)?.strip_prefix(": "));
    recorded.and_then(|seconds| seconds.parse().ok()).unwrap_or(USUAL)
}

/// Which shard has which world: the longest first, each to the shard that has the least so far.
fn divide(worlds: BTreeMap<String, u32>, shards: usize) -> BTreeMap<String, usize> {
    let mut longest: Vec<(String, u32)> = worlds.into_iter().collect();
    longest.sort_by_key(|(name, seconds)| (Reverse(*seconds), name.clone()));
    let mut loads = vec![0; shards];
    let mut divided = BTreeMap::new();
    for (name, seconds) in longest {
        if let Some((index, load)) = loads.iter_mut().enumerate().min_by_key(|(index, load)| (**load, *index)) {
            *load += seconds;
            divided.insert(name, index + 1);
        }
    }
    divided
}

#[cfg(test)]
mod tests {
    use udn_model::filter::Filter;
    use udn_model::plan::{Environment, Plan};

    use super::*;
    use crate::select;

    #[test]
    fn shards_are_written_as_fractions() {
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, of: 3 }));
        for wrong in ["", "3", "0/3", "4/3", "a/b", "1/1001", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_shards_together_are_the_run_and_about_as_long_as_each_other() {
        let suites = select::suites(None).unwrap();
        let plan = Plan::new(&suites, &Filter::default(), &Environment::complete()).unwrap();
        let names = |scenarios: &[PlannedScenario]| {
            scenarios.iter().map(|one| format!("{}::{}", one.suite, one.scenario.name)).collect::<Vec<_>>()
        };
        let mut all = Vec::new();
        let mut lengths = Vec::new();
        for index in 1..=3 {
            let mut part = plan.scenarios.clone();
            Shard { index, of: 3 }.keep(&mut part);
            lengths.push(part.iter().map(|one| seconds(&one.suite, &one.scenario.name)).sum::<u32>());
            all.extend(names(&part));
        }
        let mut expected = names(&plan.scenarios);
        expected.sort();
        all.sort();
        assert_eq!(all, expected);
        assert!(lengths.iter().max() < lengths.iter().min().map(|least| least * 3 / 2).as_ref(), "{lengths:?}");
    }

    #[test]
    fn recorded_scenarios_exist() {
        let suites = select::suites(None).unwrap();
        for line in DURATIONS.lines().filter(|line| !line.starts_with('#')) {
            let (name, seconds) = line.split_once(": ").unwrap();
            let (suite, scenario) = name.split_once("::").unwrap();
            let known = suites.iter().filter(|one| one.name == suite).flat_map(|one| &one.scenarios);
            assert!(known.clone().any(|one| one.name == scenario), "{name} is no scenario any more");
            assert!(seconds.parse::<u32>().is_ok(), "{line}");
        }
    }
}
