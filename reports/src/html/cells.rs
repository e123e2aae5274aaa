//! A cell as a row of numbers. The page's `data.js` reads what is written here: the two change together.
//!
//! Nothing of a cell is lost, but much is written once: texts by their number in [`Strings`], an id by its parts, a
//! command by what stands before and after the probed address.

use serde_json::{Value, json};
use udn_model::cell::{AddressOn, Cell, Check, Expectation, Reach, Target, VantagePoint};
use udn_model::event::CellResult;
use udn_model::observation::{Attempt, Outcome, ResolvedProbe, Witness};
use udn_model::verdict::Verdict;
use udn_model::words::Family;

use super::strings::Strings;
use crate::observed;

/// Where a cell stands: in which kind of table, in which row, below which heads.
struct Place {
    kind: u8,
    row: String,
    column: String,
    way: String,
}

/// The row of a cell; `phase` is its phase's number.
pub(super) fn row(result: &CellResult, phase: usize, strings: &mut Strings) -> Value {
    let cell = &result.cell;
    let evidence = &result.evidence;
    let place = place(cell);
    let parts: Vec<usize> = cell.id.as_str().split("::").map(|part| strings.number(part)).collect();
    let optional = |text: &Option<String>, strings: &mut Strings| strings.value(text.as_deref().unwrap_or_default());
    let mut row = vec![
        phase.into(),
        verdict(result.verdict).into(),
        json!(parts),
        strings.value(cell.rule.as_str()),
        place.kind.into(),
        strings.value(&place.row),
        strings.value(&place.column),
        strings.value(&place.way),
        family(cell.family()).into(),
        strings.value(&cell.transport().map_or_else(String::new, |transport| transport.to_string())),
        strings.value(&networks(cell).join(" ")),
        strings.value(cell.expectation.word()),
        strings.value(observed::word(result)),
        strings.value(&observed::expected(cell)),
        strings.value(&result.reason),
        result.settled_ms.map_or(json!(0), |ms| json!(ms + 1)),
        attempts(&result.attempts, strings),
        evidence.probe.as_ref().map_or(json!(0), |found| probe(found, strings)),
        strings.value(evidence.witness.map_or("", witness)),
        optional(&evidence.vantage_control, strings),
        optional(&evidence.listener_control, strings),
        repeat(evidence.repeat.as_deref().unwrap_or_default(), evidence.probe.as_ref(), strings),
        strings.value(&cell.topology.map_or_else(String::new, |topology| topology.to_string())),
        strings.value(&placement(&cell.check)),
        strings.value(&requires(cell)),
        // Few cells have one: whatever figures there are go along as they are.
        evidence.flow.as_ref().map_or(json!(0), |flow| json!([flow.to_string(), flow])),
        json!(evidence.notes.iter().map(|note| strings.number(note)).collect::<Vec<_>>()),
    ];
    let empty = |value: &Value| *value == 0 || *value == json!([]);
    while row.last().is_some_and(empty) {
        row.pop();
    }
    Value::Array(row)
}

fn verdict(verdict: Verdict) -> usize {
    Verdict::ALL.iter().position(|known| *known == verdict).unwrap_or_default()
}

const fn family(family: Option<Family>) -> u8 {
    match family {
        None => 0,
        Some(Family::V4) => 4,
        Some(Family::V6) => 6,
    }
}

fn place(cell: &Cell) -> Place {
    let with_port = |transport: &dyn std::fmt::Display, port: &Option<u16>| match port {
        Some(port) => format!("{transport} {port}"),
        None => transport.to_string(),
    };
    match &cell.check {
        Check::Probe { from, to, transport, port, flow, kind, .. } => {
            let way = with_port(transport, port);
            let way = if *flow { format!("{way} {kind}") } else { way };
            Place { kind: 0, row: from.to_string(), column: to.to_string(), way }
        }
        Check::Series { from, to, transport, port, series, .. } => {
            let way = format!("{} {}", with_port(transport, port), series.promise);
            Place { kind: 1, row: from.to_string(), column: to.to_string(), way }
        }
        Check::Figure { from, to, transport, port, kind, promise, .. } => {
            let way = with_port(transport, port);
            let way = if kind.is_frames() { way } else { format!("{way} {kind}") };
            let way = format!("{way} {promise}");
            Place { kind: 5, row: from.to_string(), column: to.to_string(), way }
        }
        Check::Resolve { from, name, transport, .. } => {
            Place { kind: 2, row: from.to_string(), column: name.to_string(), way: transport.to_string() }
        }
        Check::Fact { pod, fact, .. } => {
            Place { kind: 3, row: pod.dotted(), column: fact.to_string(), way: String::new() }
        }
        Check::Object { object, claim } => {
            Place { kind: 4, row: object.to_string(), column: claim.to_string(), way: String::new() }
        }
    }
}

fn placement(check: &Check) -> String {
    match check {
        Check::Probe { placement, .. } | Check::Series { placement, .. } | Check::Figure { placement, .. } => {
            placement.to_string()
        }
        _ => String::new(),
    }
}

/// What the target must offer, by the names of the log.
fn requires(cell: &Cell) -> String {
    let name = |feature| serde_json::to_value(feature).ok()?.as_str().map(str::to_owned);
    cell.requires.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

/// Namespaces and networks that the cell is about: what a reader who looks for a tenant types.
fn networks(cell: &Cell) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let from = |from: &VantagePoint| match from {
        VantagePoint::Pod(pod) => vec![pod.namespace.clone()],
        _ => vec![],
    };
    let to = |to: &Target| match to {
        Target::Pod { pod, on: AddressOn::Secondary(network) } => vec![pod.namespace.clone(), network.to_string()],
        Target::Pod { pod, .. } => vec![pod.namespace.clone()],
        Target::Service { service, .. } => vec![service.namespace.clone()],
        _ => vec![],
    };
    match &cell.check {
        Check::Probe { from: f, to: t, .. }
        | Check::Series { from: f, to: t, .. }
        | Check::Figure { from: f, to: t, .. } => {
            found.extend(from(f));
            found.extend(to(t));
        }
        Check::Resolve { from: f, .. } => found.extend(from(f)),
        Check::Fact { pod, .. } => found.push(pod.namespace.clone()),
        Check::Object { object, .. } => found.extend(object.namespace.clone()),
    }
    if let Expectation::Open { reach: Reach::HolderIn(network), .. } = &cell.expectation {
        found.push(network.to_string());
    }
    found.sort();
    found.dedup();
    found
}

/// Six numbers each: first, how much later the last, how many, how they ended, the time that the last took, how many
/// arrived.
fn attempts(attempts: &[Attempt], strings: &mut Strings) -> Value {
    let mut out: Vec<Value> = Vec::with_capacity(6 * attempts.len());
    for attempt in attempts {
        // The time is told apart: with it, hardly a text would be written once.
        let (outcome, took) = match &attempt.outcome {
            Outcome::Open { peer, source, rtt_us } => {
                (Outcome::Open { peer: peer.clone(), source: *source, rtt_us: 0 }, Some(*rtt_us))
            }
            Outcome::Answered { rcode, addresses, truncated, asked, took_us } => {
                let (rcode, addresses) = (*rcode, addresses.clone());
                let (truncated, asked) = (*truncated, *asked);
                (Outcome::Answered { rcode, addresses, truncated, asked, took_us: 0 }, Some(*took_us))
            }
            other => (other.clone(), None),
        };
        let text = outcome.to_string();
        let text = if took.is_some() { text.strip_suffix(", in 0.000 ms").unwrap_or(&text) } else { &text };
        out.extend([
            attempt.first_ms.into(),
            (attempt.last_ms - attempt.first_ms).into(),
            attempt.count.into(),
            strings.value(text),
            took.map_or(json!(0), |us| json!(us + 1)),
            attempt.arrived.into(),
        ]);
    }
    Value::Array(out)
}

fn probe(probe: &ResolvedProbe, strings: &mut Strings) -> Value {
    json!([
        strings.number(&probe.from),
        strings.number(&probe.to.to_string()),
        probe.port.map_or(0, |port| u32::from(port) + 1),
        strings.number(probe.question.as_deref().unwrap_or_default()),
        strings.number(&probe.reach.as_ref().map_or_else(String::new, ToString::to_string)),
    ])
}

const fn witness(witness: Witness) -> &'static str {
    match witness {
        Witness::RawCapture => "packets captured at the target's interfaces",
        Witness::ListenerCounter => "what the target's listeners accepted",
        Witness::None => "no agent at the target",
    }
}

/// What stands before the probed address and what behind it, where it is in the command; else the command.
fn repeat(command: &str, probe: Option<&ResolvedProbe>, strings: &mut Strings) -> Value {
    let address = probe.map(|probe| probe.to.to_string());
    match address.as_deref().and_then(|address| command.split_once(address)) {
        Some((before, after)) => json!([strings.number(before), strings.number(after)]),
        None => strings.value(command),
    }
}
