//! `report.json`. Cells go from the log to the report one by one: a run may have tens of thousands.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use udn_model::cell::{Check, Expectation};
use udn_model::event::{CellResult, MigrationReport, TimeBudget};
use udn_model::observation::{Attempt, Evidence};
use udn_model::verdict::{Counts, ExitCode, Verdict};
use udn_model::words::{Family, Topology, Transport};

use crate::file::Replacement;
use crate::files::Sink;
use crate::run::{PhaseReport, RunReport, ScenarioReport};
use crate::{Error, text};

/// The version of this file's shape.
pub const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Head<'a> {
    format: u32,
    run: &'a str,
    target: &'a str,
    context: &'a str,
    versions: &'a BTreeMap<String, String>,
    started: String,
    duration_s: f64,
    /// Whether the run came to its end.
    finished: bool,
    exit: Option<u8>,
    filters: &'a [String],
    summary: Counts,
    planned: usize,
    time: Option<Time>,
    warnings: &'a [String],
    failed_stages: Vec<Stage<'a>>,
    scenarios: Vec<Scenario<'a>>,
}

#[derive(Serialize)]
struct Stage<'a> {
    stage: &'a str,
    error: &'a str,
}

/// Where the time went, seconds.
#[derive(Serialize)]
struct Time {
    setup_s: f64,
    settling_s: f64,
    deny_wait_s: f64,
    probing_s: f64,
    cleanup_s: f64,
}

#[derive(Serialize)]
struct Scenario<'a> {
    suite: &'a str,
    scenario: &'a str,
    title: &'a str,
    verdict: Verdict,
    summary: Counts,
    duration_s: Option<f64>,
    settled_ms: Option<u64>,
    phases: Vec<Phase<'a>>,
}

#[derive(Serialize)]
struct Phase<'a> {
    phase: &'a str,
    verdict: Verdict,
    summary: Counts,
    rounds: u32,
    duration_s: Option<f64>,
    error: Option<&'a str>,
    /// Migrations of VMs: their course, and every flow's gaps and figures.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    migrations: &'a [MigrationReport],
}

#[derive(Serialize)]
struct Cell<'a> {
    id: &'a str,
    suite: &'a str,
    scenario: &'a str,
    phase: &'a str,
    rule: &'a str,
    expectation: &'a str,
    /// With whom an open cell must reach.
    expected: &'a Expectation,
    check: &'a Check,
    topology: Option<Topology>,
    transport: Option<Transport>,
    family: Option<Family>,
    verdict: Verdict,
    reason: &'a str,
    settled_ms: Option<u64>,
    attempts: &'a [Attempt],
    evidence: &'a Evidence,
}

/// The file, being written.
#[derive(Debug)]
pub(crate) struct Writer {
    out: Replacement,
    first: bool,
}

impl Writer {
    /// Everything but the cells, with the object left open behind it.
    pub(crate) fn begin(path: &Path, report: &RunReport) -> Result<Self, Error> {
        let mut out = Replacement::begin(path)?;
        let json = serde_json::to_string_pretty(&head(report)).map_err(|error| Error::write(path)(error.into()))?;
        out.put(json.strip_suffix("\n}").unwrap_or(&json))?;
        out.put(",\n  \"cells\": [")?;
        Ok(Self { out, first: true })
    }
}

impl Sink for Writer {
    fn cell(&mut self, result: &CellResult) -> Result<(), Error> {
        self.out.put(if self.first { "\n    " } else { ",\n    " })?;
        self.first = false;
        self.out.put_json(&cell(result))
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        self.out.put(if self.first { "]\n}\n" } else { "\n  ]\n}\n" })?;
        self.out.commit()
    }
}

fn head(report: &RunReport) -> Head<'_> {
    Head {
        format: FORMAT,
        run: &report.run,
        target: &report.target,
        context: &report.context,
        versions: &report.versions,
        started: text::rfc3339(report.started_us.unwrap_or(report.last_us)),
        duration_s: seconds(report.duration_ms()),
        finished: report.unfinished().is_none(),
        exit: report.finish.map(|finish| ExitCode::code(finish.exit)),
        filters: &report.filters,
        summary: report.counts,
        planned: report.planned_cells,
        time: report.finish.map(|finish| time(finish.time)),
        warnings: &report.warnings,
        failed_stages: report.failed_stages.iter().map(|(stage, error)| Stage { stage, error }).collect(),
        scenarios: report.scenarios.iter().map(scenario).collect(),
    }
}

fn scenario(report: &ScenarioReport) -> Scenario<'_> {
    Scenario {
        suite: &report.suite,
        scenario: &report.scenario,
        title: &report.title,
        verdict: report.verdict(),
        summary: report.counts,
        duration_s: report.duration_ms.map(seconds),
        settled_ms: report.settled_ms,
        phases: report.phases.iter().map(phase).collect(),
    }
}

fn phase(report: &PhaseReport) -> Phase<'_> {
    Phase {
        phase: &report.phase,
        verdict: report.verdict(),
        summary: report.counts,
        rounds: report.rounds,
        duration_s: report.duration_ms.map(seconds),
        error: report.error.as_deref(),
        migrations: &report.migrations,
    }
}

fn cell(result: &CellResult) -> Cell<'_> {
    let cell = &result.cell;
    Cell {
        id: cell.id.as_str(),
        suite: &cell.suite,
        scenario: &cell.scenario,
        phase: &cell.phase,
        rule: cell.rule.as_str(),
        expectation: cell.expectation.word(),
        expected: &cell.expectation,
        check: &cell.check,
        topology: cell.topology,
        transport: cell.transport(),
        family: cell.family(),
        verdict: result.verdict,
        reason: &result.reason,
        settled_ms: result.settled_ms,
        attempts: &result.attempts,
        evidence: &result.evidence,
    }
}

fn time(time: TimeBudget) -> Time {
    Time {
        setup_s: seconds(time.setup_ms),
        settling_s: seconds(time.settling_ms),
        deny_wait_s: seconds(time.deny_wait_ms),
        probing_s: seconds(time.probing_ms),
        cleanup_s: seconds(time.cleanup_ms),
    }
}

#[allow(clippy::cast_precision_loss)] // milliseconds of a run are far below 2^52
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::files::Files;
    use crate::testing;
    use udn_model::event::Event;

    fn report(events: &[Event]) -> (Value, String) {
        let text = testing::made(events, |path| Files { json: Some(path), ..Files::default() });
        (serde_json::from_str(&text).unwrap(), text)
    }

    #[test]
    fn the_report_has_what_it_promises() {
        let (json, text) = report(&testing::failing_run());
        insta::assert_snapshot!(text);
        for field in ["target", "versions", "started", "duration_s", "summary", "cells"] {
            assert!(!json[field].is_null(), "{field}");
        }
        for verdict in Verdict::ALL {
            assert!(json["summary"][verdict.to_string()].is_u64(), "{verdict}");
        }
        let cells = json["cells"].as_array().unwrap();
        assert_eq!(cells.len(), 12);
        for cell in cells {
            for field in ["id", "rule", "expectation", "verdict", "settled_ms", "attempts", "evidence"] {
                assert!(cell.get(field).is_some(), "{field}");
            }
        }
    }

    #[test]
    fn the_report_is_as_its_published_schema_says() {
        let schema: Value = serde_json::from_str(include_str!("../../docs/report.schema.json")).unwrap();
        assert_eq!(schema["properties"]["format"]["const"], FORMAT);
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let events = testing::failing_run();
        for events in [&events[..], &events[..6]] {
            let (json, _) = report(events);
            let errors: Vec<String> = validator.iter_errors(&json).map(|error| format!("{error:?}")).collect();
            assert_eq!(errors, Vec::<String>::new());
        }
        let (mut json, _) = report(&events);
        json["cells"][0]["verdict"] = "maybe".into();
        assert!(!validator.is_valid(&json));
    }

    #[test]
    fn an_unfinished_run_says_so() {
        let events = testing::failing_run();
        let (json, _) = report(&events[..6]);
        assert_eq!(json["finished"], false);
        assert_eq!(json["exit"], Value::Null);
        assert_eq!(json["cells"], Value::Array(vec![]));
    }
}
