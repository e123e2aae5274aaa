//! How flows fared: connections that went on while something happened to their ends.

use maud::{Markup, html};
use udn_model::flow::{FlowKind, megabytes};

use super::badge;
use crate::run::{FlowReport, RunReport};
use crate::text;

pub(super) fn flows(report: &RunReport) -> Markup {
    let mut rows: Vec<(String, &FlowReport)> = Vec::new();
    for scenario in &report.scenarios {
        for phase in &scenario.phases {
            rows.extend(phase.flows.iter().map(|flow| (format!("{}::{}", scenario.id(), phase.phase), flow)));
        }
    }
    rows.sort_by_key(|(_, flow)| std::cmp::Reverse(flow.figures.outage_ms));
    let longest = rows.first().map_or(1, |(_, flow)| flow.figures.outage_ms.max(1));
    html! {
        @if !rows.is_empty() {
            section #flows aria-labelledby="flows-title" {
                h2 #flows-title { "Flows and their outages" }
                p.dim { "The longest time without a reply in each phase; what is shorter than 50 ms is not counted (of a bulk transfer: without a byte, and 100 ms). A flow that must be closed is out on purpose." }
                div.scroll tabindex="0" role="region" aria-labelledby="flows-title" {
                    table.plain {
                        thead { tr {
                            th scope="col" { "flow" } th scope="col" { "phase" } th scope="col" { "verdict" }
                            th scope="col" { "longest outage" } th scope="col" { "sent" } th scope="col" { "came back" }
                            th scope="col" { "lost" } th scope="col" { "sent again" }
                        } }
                        tbody { @for (phase, flow) in &rows { (row(phase, flow, longest)) } }
                    }
                }
            }
        }
    }
}

fn row(phase: &str, flow: &FlowReport, longest: u64) -> Markup {
    let figures = &flow.figures;
    html! {
        tr {
            th scope="row" { a href={ "#cell=" (flow.cell) } { (flow.about) } }
            td { (phase) }
            td { (badge(flow.verdict)) }
            td.number {
                (if figures.outage_ms == 0 { "none".to_owned() } else { text::duration(figures.outage_ms) })
                span.meter aria-hidden="true" { span style={ "width:" (figures.outage_ms * 100 / longest) "%" } {} }
            }
            @match figures.kind {
                FlowKind::Frames => {
                    td.number { (figures.sent) }
                    td.number { (figures.received) }
                    td.number { (figures.lost) }
                }
                FlowKind::Bulk => {
                    td.number { (megabytes(figures.bytes_sent)) }
                    td.number { "–" }
                    td.number { "–" }
                }
            }
            td.number { (figures.retransmits) }
        }
    }
}
