//! One cell: its rule and who promises it, what is probed, how it is judged, and what was seen last.

use std::io::{self, Write};
use std::path::Path;

use udn_model::baseline::Baseline;
use udn_model::cell::{Cell, Check, Expectation};
use udn_model::event::{CellResult, EventKind};
use udn_model::scenario::{Action, Scenario};

use crate::jsonl::Reader;
use crate::{Error, observed, text};

/// A cell's last result, and when its run began.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Microseconds since the Unix epoch.
    pub started_us: i64,
    /// The run's id.
    pub run: String,
    /// `lab` or `kube`.
    pub target: String,
    /// What became of the cell; `None`: the run did not judge it.
    pub result: Option<Box<CellResult>>,
}

/// Looks a cell up in a run's log.
///
/// # Errors
/// The log cannot be read or holds no run.
pub fn last_seen(events: &Path, cell: &str) -> Result<Seen, Error> {
    let mut seen: Option<Seen> = None;
    for event in Reader::open(events)? {
        let event = event?;
        match (event.kind, &mut seen) {
            (EventKind::RunStarted { run, target, .. }, _) => {
                seen = Some(Seen { started_us: event.at_us, run, target, result: None });
            }
            (EventKind::CellFinished(result), Some(seen)) if result.cell.id.as_str() == cell => {
                seen.result = Some(result)
            }
            _ => {}
        }
    }
    seen.ok_or_else(|| Error::NoRun { path: events.into() })
}

/// Writes everything that is known of a cell.
///
/// # Errors
/// `out` cannot be written to.
pub fn explain(out: &mut dyn Write, cell: &Cell, scenario: &Scenario, seen: Option<&Seen>) -> io::Result<()> {
    writeln!(out, "{}\n", cell.id)?;
    match cell.rule.rule() {
        Some(rule) => {
            field(out, "rule", rule.name)?;
            field(out, "promise", rule.promise)?;
            let sources: Vec<_> = rule.sources.iter().map(ToString::to_string).collect();
            field(out, "source", &sources.join("; "))?;
            field(out, "upstream", rule.upstream)?;
        }
        None => field(out, "rule", cell.rule.as_str())?,
    }
    writeln!(out)?;
    field(out, "scenario", &format!("{}::{}: {}", cell.suite, scenario.name, scenario.title))?;
    field(out, "world", &world(scenario))?;
    for phase in &scenario.phases {
        let actions: Vec<_> = phase.actions.iter().map(action).collect();
        let before = if actions.is_empty() { "nothing is done before".to_owned() } else { actions.join("; ") };
        let here = if phase.name == cell.phase { " (the cell's)" } else { "" };
        field(out, "phase", &format!("{}{here}: {before}", phase.name))?;
        if phase.name == cell.phase {
            break;
        }
    }
    writeln!(out)?;
    field(out, "about", &observed::subject(cell))?;
    if let Check::Probe { placement, .. } | Check::Series { placement, .. } = &cell.check {
        field(out, "placed", &placement.to_string())?;
    }
    let expected =
        if let Check::Series { series, .. } = &cell.check { series.to_string() } else { cell.expectation.to_string() };
    field(out, "expected", &expected)?;
    field(out, "judged", judged(cell))?;
    let needs: Vec<_> = cell.requires.iter().map(|feature| format!("skipped where {}", feature.missing())).collect();
    for need in needs {
        field(out, "needs", &need)?;
    }
    writeln!(out)?;
    match seen {
        None => field(out, "seen", "no run has reported yet; `udn-conformance run` does"),
        Some(seen) => last(out, seen),
    }
}

fn last(out: &mut dyn Write, seen: &Seen) -> io::Result<()> {
    let run = format!("run {} on {}, {}", seen.run, seen.target, text::rfc3339(seen.started_us));
    let Some(result) = &seen.result else {
        return field(out, "seen", &format!("{run}: did not judge this cell"));
    };
    let reason = if result.reason.is_empty() { String::new() } else { format!(": {}", result.reason) };
    field(out, "seen", &format!("{run}: {}{reason}", result.verdict))?;
    if let Some(ms) = result.settled_ms {
        field(out, "settled", &format!("in {}", text::duration(ms)))?;
    }
    for attempt in &result.attempts {
        field(out, "attempt", &observed::attempt(attempt, &result.cell))?;
    }
    if let Some(probe) = &result.evidence.probe {
        field(out, "probed", &format!("{} from {}", probe.to, probe.from))?;
    }
    if let Some(flow) = &result.evidence.flow {
        field(out, "flow", &flow.to_string())?;
    }
    for control in [&result.evidence.vantage_control, &result.evidence.listener_control].into_iter().flatten() {
        field(out, "control", control)?;
    }
    for note in &result.evidence.notes {
        field(out, "note", note)?;
    }
    field(out, "repeat", result.evidence.repeat.as_deref().unwrap_or_default())
}

/// How the verdict comes about, from the rules of design.
const fn judged(cell: &Cell) -> &'static str {
    match &cell.expectation {
        Expectation::Closed if matches!(cell.check, Check::Probe { flow: true, .. }) => {
            "passes when no frame of the flow came back, and two controls worked in the same round: the vantage point reached something \
             over the same transport and family, and the listener answered somebody entitled; arrivals are not looked for"
        }
        Expectation::Open { .. } => {
            "passes when the target itself answers, told by its identity, in consecutive rounds; an answer from somebody else fails"
        }
        Expectation::Closed => {
            "passes when no attempt got through and none arrived at the target, whatever the manner, and two controls worked in the same \
             round: the vantage point reached something over the same transport and family, and the listener answered somebody entitled"
        }
        Expectation::Dropped => "as closed, and every attempt must time out",
        Expectation::Rejected => {
            "passes when every attempt is refused (a reset to a SYN, a port-unreachable to a datagram) or reset, and in the same round \
             the vantage point reached something over the same transport and family"
        }
        Expectation::Resolves { .. } => {
            "passes when the DNS service gives exactly these addresses, in consecutive rounds; the server is not the harness' own, so \
             that there is no evidence from its side"
        }
        Expectation::NoSuchName => {
            "passes when the DNS service says that there is no such name, and in the same round told the same vantage point what another \
             name means"
        }
        Expectation::Holds => "passes when what is found is what the rule promises, in consecutive rounds",
    }
}

fn world(scenario: &Scenario) -> String {
    let world = &scenario.world.world;
    format!(
        "{}: {}, {}, {}",
        scenario.world.name,
        text::count(world.namespaces.len(), "namespace"),
        text::count(world.networks.len(), "network"),
        text::count(world.pods.len(), "pod")
    )
}

fn action(action: &Action) -> String {
    let objects = |objects: &[serde_json::Value]| {
        let names = objects.iter().map(|object| {
            let text =
                |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
            format!("{} {}", text("/kind"), text("/metadata/name"))
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let set = |value: &Option<String>| {
        value.as_ref().map_or_else(|| "is removed".to_owned(), |value| format!("is set to `{value}`"))
    };
    match action {
        Action::Apply(list) => format!("apply {}", objects(list)),
        Action::Submit(list) => format!("submit {}", objects(list)),
        Action::TryCreate(list) => format!("ask whether these would be created: {}", objects(list)),
        Action::TryChange(list) => format!("ask whether these would be changed: {}", objects(list)),
        Action::Delete(object) => format!("delete {object}"),
        Action::DeleteAndWait(object) => format!("delete {object} and wait until it is gone"),
        Action::Label { object, key, value } => format!("label {key} of {object} {}", set(value)),
        Action::RestartNodeComponent { node } => format!("restart the network's node component on node{node}"),
        Action::Annotate { object, key, value } => format!("annotation {key} of {object} {}", set(value)),
        Action::Migrate { vm, to } => format!("migrate VM {vm} to node{to}"),
        Action::FailMigration { vm, how } => format!("begin a migration of VM {vm} that fails: {how}"),
        Action::RestartVm(vm) => format!("stop VM {vm} and start it again"),
        Action::StopVm(vm) => format!("stop VM {vm}"),
        Action::StartVm(vm) => format!("start VM {vm}"),
        Action::SetReady { pod, ready: true } => format!("make pod {pod} ready"),
        Action::SetReady { pod, ready: false } => format!("make pod {pod} not ready"),
        Action::DeleteMirrored(service) => format!("delete the mirrored EndpointSlices of service {service}"),
    }
}

/// Writes the known issues that name a cell, wherever they are ones.
///
/// # Errors
/// `out` cannot be written to.
pub fn known(out: &mut dyn Write, cell: &Cell, baseline: &Baseline) -> io::Result<()> {
    let mut issues = baseline.of(cell).peekable();
    if issues.peek().is_some() {
        writeln!(out)?;
    }
    issues.try_for_each(|issue| field(out, "known", &format!("{} [{}]", issue.told(), issue.scope())))
}

fn field(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    if value.is_empty() { Ok(()) } else { writeln!(out, "{name:>9}  {}", value.replace('\n', "\n           ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonl::Writer;
    use crate::testing;
    use udn_model::scenario::WorldSpec;
    use udn_model::world::World;

    #[test]
    fn a_cell_is_explained_with_what_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("events.jsonl");
        let mut writer = Writer::create(&log).unwrap();
        testing::failing_run().iter().for_each(|event| writer.write(event).unwrap());
        let result = testing::cells().remove(1);
        let seen = last_seen(&log, result.cell.id.as_str()).unwrap();
        let world = WorldSpec { name: "layer3".into(), manifests: vec![], world: World::default(), requires: vec![] };
        let scenario = Scenario {
            name: "layer3".into(),
            title: "everybody to everybody".into(),
            world,
            exclusive: false,
            phases: vec![],
        };
        let mut out = Vec::new();
        explain(&mut out, &result.cell, &scenario, Some(&seen)).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
