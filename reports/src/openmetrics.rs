//! `metrics.txt`: verdicts, settle times, outages and durations in the OpenMetrics text format, for a nightly trend.

use std::fmt::Write;

use udn_model::verdict::{ExitCode, Verdict};

use crate::run::RunReport;

/// What all names begin with.
const PREFIX: &str = "udn_conformance";
/// Which quantiles of settle times are told, percent.
const QUANTILES: [usize; 4] = [50, 90, 95, 99];

/// The file.
#[must_use]
pub fn text(report: &RunReport) -> String {
    let mut out = Exposition::default();
    run(&mut out, report);
    out.family("cells", "gauge", "", "Cells of the run by verdict.");
    for verdict in Verdict::ALL {
        out.sample("cells", &[("verdict", &verdict.to_string())], &report.counts.of(verdict).to_string());
    }
    scenarios(&mut out, report);
    outages(&mut out, report);
    out.text.push_str("# EOF\n");
    out.text
}

fn run(out: &mut Exposition, report: &RunReport) {
    out.family("run", "info", "", "What was run, where and with what.");
    let mut labels = vec![("run".to_owned(), report.run.as_str()), ("target".to_owned(), &report.target)];
    labels.push(("context".to_owned(), &report.context));
    for (name, version) in &report.versions {
        labels.push((format!("version_{}", label_name(name)), version));
    }
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    out.sample("run_info", &labels, "1");
    out.family("started_seconds", "gauge", "seconds", "When the run began, since the Unix epoch.");
    let started = report.started_us.unwrap_or(report.last_us).div_euclid(1_000);
    out.sample("started_seconds", &[], &seconds(u64::try_from(started).unwrap_or(0)));
    out.family("duration_seconds", "gauge", "seconds", "How long the run took.");
    out.sample("duration_seconds", &[], &seconds(report.duration_ms()));
    out.family("finished", "gauge", "", "1 if the run came to its end, else 0.");
    out.sample("finished", &[], if report.unfinished().is_none() { "1" } else { "0" });
    let Some(finish) = report.finish else { return };
    out.family("exit_code", "gauge", "", "What the program exited with.");
    out.sample("exit_code", &[], &ExitCode::code(finish.exit).to_string());
    out.family("time_seconds", "gauge", "seconds", "Where the time went; scenarios run side by side.");
    let time = finish.time;
    for (part, ms) in [
        ("setup", time.setup_ms),
        ("settling", time.settling_ms),
        ("deny-wait", time.deny_wait_ms),
        ("probing", time.probing_ms),
        ("cleanup", time.cleanup_ms),
    ] {
        out.sample("time_seconds", &[("part", part)], &seconds(ms));
    }
}

fn scenarios(out: &mut Exposition, report: &RunReport) {
    out.family("scenario_cells", "gauge", "", "Cells of a scenario by verdict; verdicts that none has are left out.");
    for scenario in &report.scenarios {
        for verdict in Verdict::ALL.into_iter().filter(|verdict| scenario.counts.of(*verdict) > 0) {
            let (count, verdict) = (scenario.counts.of(verdict).to_string(), verdict.to_string());
            let labels = [("suite", scenario.suite.as_str()), ("scenario", &scenario.scenario), ("verdict", &verdict)];
            out.sample("scenario_cells", &labels, &count);
        }
    }
    out.family("scenario_duration_seconds", "gauge", "seconds", "How long a scenario took.");
    for scenario in &report.scenarios {
        if let Some(ms) = scenario.duration_ms {
            let labels = [("suite", scenario.suite.as_str()), ("scenario", scenario.scenario.as_str())];
            out.sample("scenario_duration_seconds", &labels, &seconds(ms));
        }
    }
    out.family("settle_seconds", "summary", "seconds", "How long a scenario's cells took to settle.");
    for scenario in &report.scenarios {
        let settled = scenario.settled();
        let labels = vec![("suite", scenario.suite.as_str()), ("scenario", scenario.scenario.as_str())];
        for percent in QUANTILES {
            if let Some(ms) = settled.percentile(percent) {
                let quantile = format!("0.{percent:02}");
                out.sample("settle_seconds", &[&labels[..], &[("quantile", &quantile)]].concat(), &seconds(ms));
            }
        }
        if let Some(ms) = settled.max() {
            out.sample("settle_seconds", &[&labels[..], &[("quantile", "1.0")]].concat(), &seconds(ms));
        }
        out.sample("settle_seconds_count", &labels, &settled.len().to_string());
        out.sample("settle_seconds_sum", &labels, &seconds(settled.values().iter().sum()));
    }
}

fn outages(out: &mut Exposition, report: &RunReport) {
    let flows = || {
        report.scenarios.iter().flat_map(|scenario| {
            scenario.phases.iter().flat_map(move |phase| phase.flows.iter().map(move |flow| (scenario, phase, flow)))
        })
    };
    out.family("outage_seconds", "gauge", "seconds", "The longest time a flow had no reply in a phase.");
    for (scenario, phase, flow) in flows() {
        let labels = [
            ("suite", scenario.suite.as_str()),
            ("scenario", &scenario.scenario),
            ("phase", &phase.phase),
            ("cell", flow.cell.as_str()),
            ("expectation", if flow.closed { "closed" } else { "open" }),
        ];
        out.sample("outage_seconds", &labels, &seconds(flow.figures.outage_ms));
    }
    out.family("lost_frames", "gauge", "", "Frames of a flow that did not come back, since it began.");
    // A bulk transfer has no frames.
    for (scenario, phase, flow) in flows().filter(|(_, _, flow)| flow.figures.kind.is_frames()) {
        let labels = [
            ("suite", scenario.suite.as_str()),
            ("scenario", &scenario.scenario),
            ("phase", &phase.phase),
            ("cell", flow.cell.as_str()),
        ];
        out.sample("lost_frames", &labels, &flow.figures.lost.to_string());
    }
}

/// The text, as it grows.
#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family of metrics.
    fn family(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let _ = writeln!(self.text, "# TYPE {PREFIX}_{name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {PREFIX}_{name} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {PREFIX}_{name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let _ = write!(self.text, "{PREFIX}_{name}");
        if !labels.is_empty() {
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `Open vSwitch` as `open_vswitch`.
fn label_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use crate::testing;

    #[test]
    fn figures_are_told_in_open_metrics() {
        let text = testing::made(&testing::failing_run(), |path| Files { openmetrics: Some(path), ..Files::default() });
        insta::assert_snapshot!(text);
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
        assert_eq!(label_name("Open vSwitch"), "open_vswitch");
    }
}
