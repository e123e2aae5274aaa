//! Migrations of VMs and what they were to flows, a line each.

use udn_model::event::{FlowTrace, MigrationReport};
use udn_model::flow::megabytes;
use udn_model::migration::{Migration, Moment};

/// Bulk transfers first, then the longest outage, then in the order of cells.
const FLOWS_TOLD: usize = 12;

/// Lines about a migration: its course, and how each flow fared.
#[must_use]
pub fn lines(report: &MigrationReport) -> Vec<String> {
    let mut lines = vec![course(&report.migration)];
    let mut flows: Vec<&FlowTrace> = report.flows.iter().collect();
    flows.sort_by_key(|flow| (flow.figures.kind.is_frames(), std::cmp::Reverse(flow.figures.outage_ms)));
    lines.extend(flows.iter().take(FLOWS_TOLD).map(|flow| of_flow(flow)));
    if flows.len() > FLOWS_TOLD {
        lines.push(format!("… and {} more flows: report.json has them all", flows.len() - FLOWS_TOLD));
    }
    lines
}

fn course(migration: &Migration) -> String {
    let node = |node: &Option<String>| node.clone().unwrap_or_else(|| "?".into());
    let seconds = |us: i64| format!("{}.{:01} s", us / 1_000_000, us % 1_000_000 / 100_000);
    let took = seconds(migration.over_us - migration.asked_us);
    let mut told = if migration.succeeded {
        format!("{} from {} to {} in {took}", migration.vm, node(&migration.from), node(&migration.to))
    } else {
        format!("{} stays on {}: its migration failed after {took}", migration.vm, node(&migration.from))
    };
    if let Some(pause) = migration.pause_ms {
        told.push_str(&format!(", guest paused {pause} ms"));
    }
    let at = |what: Moment| migration.marks.iter().find(|mark| mark.what == what).map(|mark| mark.at_us);
    if let (Some(resumed), Some(ready)) = (at(Moment::Resumed), at(Moment::TargetReady)) {
        told.push_str(&format!(", network told {:+} ms after it ran again", (ready - resumed) / 1000));
    }
    told
}

fn of_flow(flow: &FlowTrace) -> String {
    // The part of the id that says who and what: the scenario and phase are known.
    let what: Vec<&str> = flow.cell.as_str().split("::").skip(4).filter(|part| *part != "flow").collect();
    let figures = &flow.figures;
    let mut told = match &figures.throughput {
        Some(throughput) => {
            format!("{} at {}/s, ", megabytes(figures.bytes_sent), megabytes(throughput.per_second()))
        }
        None => String::new(),
    };
    told.push_str(&match figures.outage_ms {
        0 => "no outage".to_owned(),
        ms => format!("out {ms} ms"),
    });
    if figures.gaps.len() > 1 {
        told.push_str(&format!(" ({} gaps)", figures.gaps.len()));
    }
    if let Some(split) = flow.split {
        told.push_str(&format!(": {split}"));
    }
    for (count, what) in [(figures.lost_now, "lost"), (u64::from(figures.retransmits), "sent again")] {
        if count > 0 {
            told.push_str(&format!(", {count} {what}"));
        }
    }
    if let Some(why) = &figures.ended {
        told.push_str(&format!(", cut: {why}"));
    }
    format!("  {} {told}", what.join(" "))
}

#[cfg(test)]
mod tests {
    use udn_model::cell::CellId;
    use udn_model::flow::{FlowFigures, FlowGap, FlowKind, FlowRate};
    use udn_model::migration::{Mark, Split};
    use udn_model::world::PodRef;

    use super::*;

    #[test]
    fn a_migration_is_told_in_lines() {
        let mark = |at_us, what| Mark { at_us, what, within_ms: 0 };
        let gap = FlowGap { at_us: 990_000, took_ms: 163, starved_ms: 0, open: false };
        let figures = FlowFigures { outage_ms: 163, retransmits: 1, gaps: vec![gap], ..FlowFigures::default() };
        let bulk = FlowFigures {
            kind: FlowKind::Bulk,
            bytes_sent: 7_250_000,
            throughput: Some(FlowRate { from_us: 0, per_100ms: vec![150_000, 120_000, 20] }),
            ..figures.clone()
        };
        let trace = |what: &str, split, figures| FlowTrace {
            cell: CellId(format!(
                "vm::migration::there::tcp-survives::red.a::red.db@primary::other-node::tcp-7007::v4::{what}"
            )),
            split,
            figures,
        };
        let split = Split { pause_ms: 10, network_ms: 153 };
        let report = MigrationReport {
            suite: "vm".into(),
            scenario: "migration".into(),
            phase: "there".into(),
            migration: Migration {
                vm: PodRef::new("red", "db"),
                from: Some("worker1".into()),
                to: Some("worker2".into()),
                succeeded: true,
                asked_us: 0,
                over_us: 2_340_000,
                marks: vec![mark(1_000_000, Moment::Resumed), mark(1_015_000, Moment::TargetReady)],
                pause_ms: Some(10),
                announcements: vec![],
            },
            flows: vec![trace("flow", Some(split), figures), trace("bulk", None, bulk)],
        };
        assert_eq!(
            lines(&report),
            [
                "red/db from worker1 to worker2 in 2.3 s, guest paused 10 ms, network told +15 ms after it ran again",
                "  red.a red.db@primary other-node tcp-7007 v4 bulk 7.25 MB at 1.35 MB/s, out 163 ms, 1 sent again",
                "  red.a red.db@primary other-node tcp-7007 v4 out 163 ms: guest paused 10 ms, network back 153 ms after it ran again, 1 sent again",
            ]
        );
    }
}
