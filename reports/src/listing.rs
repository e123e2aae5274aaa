//! `list` and `plan`: what exists, and what would run.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use udn_model::cell::Cell;
use udn_model::plan::{Plan, PlannedCell};
use udn_model::scenario::Suite;
use udn_model::words::{Family, Topology, Transport};

use crate::text;

/// Whether skips are shown: `plan` knows a target, `list` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What exists.
    List,
    /// What would run, and why the rest would not.
    Plan,
}

/// A cell for machines.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    suite: &'a str,
    scenario: &'a str,
    phase: &'a str,
    rule: &'a str,
    expectation: &'a str,
    topology: Option<Topology>,
    transport: Option<Transport>,
    family: Option<Family>,
    /// Only in a plan: the reason, or null.
    #[serde(skip_serializing_if = "Option::is_none")]
    skip: Option<Option<&'a str>>,
}

/// Writes a JSON array, one cell a line.
///
/// # Errors
/// `out` cannot be written to.
pub fn json(out: &mut dyn Write, plan: &Plan, mode: Mode) -> io::Result<()> {
    out.write_all(b"[")?;
    for (index, planned) in plan.cells().enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, &row(planned, mode))?;
    }
    out.write_all(b"\n]\n")
}

fn row(planned: &PlannedCell, mode: Mode) -> Row<'_> {
    let cell = &planned.cell;
    Row {
        id: cell.id.as_str(),
        suite: &cell.suite,
        scenario: &cell.scenario,
        phase: &cell.phase,
        rule: cell.rule.as_str(),
        expectation: cell.expectation.word(),
        topology: cell.topology,
        transport: cell.transport(),
        family: cell.family(),
        skip: (mode == Mode::Plan).then_some(planned.skip.as_deref()),
    }
}

/// Writes suites, scenarios, phases and rules with their numbers of cells; with `cells` every cell, too.
///
/// # Errors
/// `out` cannot be written to.
pub fn text(out: &mut dyn Write, plan: &Plan, suites: &[Suite], mode: Mode, cells: bool) -> io::Result<()> {
    for suite in suites {
        let of_suite: Vec<_> = plan.scenarios.iter().filter(|planned| planned.suite == suite.name).collect();
        if of_suite.is_empty() {
            continue;
        }
        let total = of_suite.iter().flat_map(|planned| &planned.phases).map(|phase| phase.cells.len()).sum();
        writeln!(
            out,
            "{}: {} ({} in {})",
            suite.name,
            suite.title,
            text::count(total, "cell"),
            text::count(of_suite.len(), "scenario")
        )?;
        for planned in of_suite {
            writeln!(out, "  {}: {}", planned.scenario.name, planned.scenario.title)?;
            for phase in planned.phases.iter().filter(|phase| !phase.cells.is_empty()) {
                writeln!(out, "    {}: {}", phase.name, tally(&phase.cells, mode))?;
                if cells {
                    for planned in &phase.cells {
                        writeln!(
                            out,
                            "      {:<8} {}{}",
                            planned.cell.expectation.word(),
                            planned.cell.id,
                            skipped(planned, mode)
                        )?;
                    }
                } else {
                    rules(out, &phase.cells)?;
                }
            }
        }
        writeln!(out)?;
    }
    let (total, skips) = (plan.cells().count(), plan.cells().filter(|planned| planned.skip.is_some()).count());
    write!(out, "{} in {}", text::count(total, "cell"), text::count(plan.scenarios.len(), "scenario"))?;
    match mode {
        Mode::List => writeln!(out),
        Mode::Plan => {
            writeln!(out, ": {} would run, {} be skipped", text::number(total - skips), text::number(skips))?;
            reasons(out, plan)
        }
    }
}

fn skipped(planned: &PlannedCell, mode: Mode) -> String {
    match (&planned.skip, mode) {
        (Some(reason), Mode::Plan) => format!("  (skip: {reason})"),
        _ => String::new(),
    }
}

/// `2,012 cells: 402 open, 1,610 closed; 12 would be skipped`.
fn tally(cells: &[PlannedCell], mode: Mode) -> String {
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for planned in cells {
        *words.entry(planned.cell.expectation.word()).or_default() += 1;
    }
    let words: Vec<_> = words.iter().map(|(word, count)| format!("{} {word}", text::number(*count))).collect();
    let mut line = format!("{}: {}", text::count(cells.len(), "cell"), words.join(", "));
    let skips = cells.iter().filter(|planned| planned.skip.is_some()).count();
    if mode == Mode::Plan && skips > 0 {
        line.push_str(&format!("; {} would be skipped", text::number(skips)));
    }
    line
}

fn rules(out: &mut dyn Write, cells: &[PlannedCell]) -> io::Result<()> {
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for planned in cells {
        *rules.entry(rule(&planned.cell)).or_default() += 1;
    }
    for (rule, count) in rules {
        writeln!(out, "      {:>7}  {rule}", text::number(count))?;
    }
    Ok(())
}

fn rule(cell: &Cell) -> &str {
    cell.rule.as_str()
}

fn reasons(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in plan.cells().filter_map(|planned| planned.skip.as_deref()) {
        *reasons.entry(reason).or_default() += 1;
    }
    for (reason, count) in reasons {
        writeln!(out, "  {:>7}  {reason}", text::number(count))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use udn_model::cell::Expectation;
    use udn_model::plan::{PlannedPhase, PlannedScenario};
    use udn_model::scenario::{Probing, Scenario, WorldSpec};
    use udn_model::verdict::Verdict;
    use udn_model::world::World;

    use super::*;
    use crate::testing;

    /// Three cells, the last of which would be skipped.
    fn plan() -> (Plan, Vec<Suite>) {
        let cell = |to, expectation, skip: Option<&str>| PlannedCell {
            cell: testing::probe_result("a", to, expectation, Verdict::Pass).cell,
            skip: skip.map(str::to_owned),
        };
        let cells = vec![
            cell("a", testing::reaching("a"), None),
            cell("b", Expectation::Closed, None),
            cell("c", Expectation::Closed, Some("the cluster has fewer than two schedulable nodes")),
        ];
        let world = WorldSpec { name: "layer3".into(), manifests: vec![], world: World::default(), requires: vec![] };
        let title = "every vantage point to every target".into();
        let scenario = Scenario { name: "layer3".into(), title, world, exclusive: false, phases: vec![] };
        let phase = PlannedPhase {
            name: "steady".into(),
            actions: vec![],
            probing: Probing::AfterActions,
            settle_within_s: 0,
            world: World::default(),
            cells,
        };
        let scenario = PlannedScenario { suite: "isolation".into(), scenario, phases: vec![phase] };
        let suites =
            ["isolation", "addressing"].map(|name| Suite { name, title: "who reaches whom", scenarios: vec![] });
        (Plan { scenarios: vec![scenario] }, suites.into())
    }

    fn written(mode: Mode, cells: bool) -> String {
        let (plan, suites) = plan();
        let mut out = Vec::new();
        text(&mut out, &plan, &suites, mode, cells).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_tells_numbers_and_a_plan_reasons() {
        insta::assert_snapshot!("list", written(Mode::List, false));
        insta::assert_snapshot!("plan", written(Mode::Plan, false));
        insta::assert_snapshot!("plan_with_cells", written(Mode::Plan, true));
    }

    #[test]
    fn only_a_plan_has_skips() {
        let rows = |mode| {
            let mut out = Vec::new();
            json(&mut out, &plan().0, mode).unwrap();
            serde_json::from_slice::<Vec<Value>>(&out).unwrap()
        };
        assert!(rows(Mode::List).iter().all(|row| row.get("skip").is_none()));
        let skips: Vec<_> = rows(Mode::Plan).into_iter().map(|row| row["skip"].clone()).collect();
        assert_eq!(skips, [Value::Null, Value::Null, "the cluster has fewer than two schedulable nodes".into()]);
    }

    #[test]
    fn an_empty_plan_is_an_empty_array() {
        let mut out = Vec::new();
        json(&mut out, &Plan { scenarios: vec![] }, Mode::List).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&out).unwrap(), Vec::<Value>::new());
    }
}
