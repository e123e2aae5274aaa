//! Migrations of VMs, drawn: on one axis of time the cluster's phases, the moments of the hand-over, announcements, and of
//! each flow the replies in every tenth of a second with its gaps; of a bulk transfer its throughput.

use maud::{Markup, html};
use udn_model::event::{FlowTrace, MigrationReport};
use udn_model::flow::{FlowKind, FlowRate, megabytes};
use udn_model::migration::{HeardAt, Moment};

use crate::migrations;
use crate::run::RunReport;

/// Width of the drawing, of the names at its left, and of what is left for time; the drawing's own units.
const WIDTH: f64 = 1000.0;
const NAMES: f64 = 230.0;
const SPAN: f64 = WIDTH - NAMES - 10.0;
/// Heights of the axis, of the lanes for phases and announcements, and of a flow's lane.
const AXIS: f64 = 22.0;
const LANE: f64 = 20.0;
const FLOW: f64 = 34.0;
/// How many flows are drawn, those with the longest outages.
const DRAWN: usize = 24;
/// What is shown before a migration is asked for, and after it is over, microseconds.
const BEFORE_US: i64 = 1_000_000;
const AFTER_US: i64 = 2_000_000;
/// A class of [`FlowRate`], microseconds.
const TENTH_US: i64 = 100_000;

pub(super) fn migrations(report: &RunReport) -> Markup {
    let phases = report.scenarios.iter().flat_map(|scenario| &scenario.phases);
    let all: Vec<&MigrationReport> = phases.flat_map(|phase| &phase.migrations).collect();
    html! {
        @if !all.is_empty() {
            section #migrations aria-labelledby="migrations-title" {
                h2 #migrations-title { "Migrations" }
                @for migration in all { (of_migration(migration)) }
            }
        }
    }
}

fn of_migration(report: &MigrationReport) -> Markup {
    let lines = migrations::lines(report);
    html! {
        details.migration open {
            summary { (report.suite) "::" (report.scenario) "::" (report.phase) ": " (lines.first().map_or("", String::as_str)) }
            div.scroll tabindex="0" role="region" aria-label="Timeline" { (Drawing::new(report).svg(&lines)) }
            details {
                summary { "In words" }
                ul {
                    @for line in &lines { li { (line) } }
                    @for heard in &report.migration.announcements {
                        li { "at " (after(heard.said.at_us - report.migration.asked_us)) " " (heard.at) " heard: " (said(heard)) }
                    }
                }
            }
        }
    }
}

/// What a gap is, in words.
const fn silence(flow: &FlowTrace) -> &'static str {
    match flow.figures.kind {
        FlowKind::Frames => "no reply",
        FlowKind::Bulk => "no byte acknowledged",
    }
}

/// An announcement in words.
fn said(heard: &HeardAt) -> String {
    let said = &heard.said;
    let address = said.address.map_or_else(String::new, |address| format!(" of {address}"));
    format!("{}{address} at {}", said.said, said.mac)
}

/// `+1.250 s` after the migration was asked for.
fn after(us: i64) -> String {
    let sign = if us < 0 { '−' } else { '+' };
    let ms = us.unsigned_abs() / 1_000;
    format!("{sign}{}.{:03} s", ms / 1_000, ms % 1_000)
}

struct Drawing<'a> {
    report: &'a MigrationReport,
    flows: Vec<&'a FlowTrace>,
    from_us: i64,
    to_us: i64,
}

impl<'a> Drawing<'a> {
    fn new(report: &'a MigrationReport) -> Self {
        let migration = &report.migration;
        let mut flows: Vec<&FlowTrace> = report.flows.iter().collect();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.figures.outage_ms));
        flows.truncate(DRAWN);
        let marks = migration.marks.iter().map(|mark| mark.at_us);
        let heard = migration.announcements.iter().map(|heard| heard.said.at_us);
        let ends = flows.iter().filter_map(|flow| flow.figures.longest()).map(|gap| gap.at_us + us(gap.took_ms));
        let from_us = migration.asked_us - BEFORE_US;
        let last = marks.chain(heard).chain(ends).max().unwrap_or(migration.over_us).max(migration.over_us);
        Self { report, flows, from_us, to_us: last + AFTER_US }
    }

    /// Where a time stands.
    fn x(&self, at_us: i64) -> f64 {
        let at = at_us.clamp(self.from_us, self.to_us);
        NAMES + SPAN * part(at - self.from_us) / part(self.to_us - self.from_us).max(1.0)
    }

    fn width(&self, from_us: i64, to_us: i64) -> f64 {
        (self.x(to_us) - self.x(from_us)).max(1.0)
    }

    fn height(&self) -> f64 {
        let flows = self.flows.iter().map(|_| FLOW).sum::<f64>();
        AXIS + 3.0 * LANE + flows + 6.0
    }

    fn svg(&self, lines: &[String]) -> Markup {
        let height = self.height();
        html! {
            svg.timeline viewBox={ "0 0 " (WIDTH) " " (height) } role="img" aria-label=(lines.join("; ")) {
                (self.axis(height))
                (self.phases())
                (self.moments(height))
                (self.announcements())
                @for (index, flow) in self.flows.iter().enumerate() {
                    (self.flow(flow, AXIS + 3.0 * LANE + count(index) * FLOW))
                }
            }
        }
    }

    fn axis(&self, height: f64) -> Markup {
        let asked = self.report.migration.asked_us;
        let seconds = (self.to_us - asked) / 1_000_000;
        let step = [1, 2, 5, 10, 20, 30, 60].into_iter().find(|step| seconds / step <= 15).unwrap_or(120);
        html! {
            @for tick in (0..=seconds).step_by(usize::try_from(step).unwrap_or(1)) {
                @let x = self.x(asked + tick * 1_000_000);
                line.tick x1=(x) x2=(x) y1=(AXIS) y2=(height) {}
                text x=(x) y=(AXIS - 8.0) text-anchor="middle" { (tick) " s" }
            }
        }
    }

    /// Phases of the migration as the cluster told them, each until the next.
    fn phases(&self) -> Markup {
        let migration = &self.report.migration;
        let told: Vec<(i64, &str)> = migration
            .marks
            .iter()
            .filter_map(|mark| match &mark.what {
                Moment::Phase(phase) => Some((mark.at_us, phase.as_str())),
                _ => None,
            })
            .collect();
        html! {
            text x="0" y=(AXIS + 14.0) { "cluster's phases" }
            @for (index, (at, phase)) in told.iter().enumerate() {
                @let end = told.get(index + 1).map_or(migration.over_us.max(*at), |next| next.0);
                g {
                    title { (phase) " at " (after(at - migration.asked_us)) }
                    rect class={ "phase even" (index % 2) } x=(self.x(*at)) y=(AXIS + 2.0) width=(self.width(*at, end)) height=(LANE - 4.0) {}
                    @if self.width(*at, end) > 7.0 * count(phase.len()) {
                        text x=(self.x(*at) + 3.0) y=(AXIS + 14.0) { (phase) }
                    }
                }
            }
        }
    }

    /// What happened at the switch, through all lanes.
    fn moments(&self, height: f64) -> Markup {
        let migration = &self.report.migration;
        let at = |what: Moment| migration.marks.iter().find(|mark| mark.what == what).map(|mark| mark.at_us);
        let top = AXIS + LANE;
        html! {
            text x="0" y=(top + 14.0) { "hand-over" }
            @if let (Some(stopped), Some(resumed)) = (at(Moment::Stopped), at(Moment::Resumed)) {
                rect.pause x=(self.x(stopped)) y=(top) width=(self.width(stopped, resumed)) height=(height - top) {
                    title { "the guest stood still for " ((resumed - stopped) / 1_000) " ms" }
                }
            }
            @for mark in migration.marks.iter().filter(|mark| !matches!(mark.what, Moment::Phase(_))) {
                @let x = self.x(mark.at_us);
                g {
                    title { (mark.what) " at " (after(mark.at_us - migration.asked_us))
                        @if mark.within_ms > 0 { ", exact to " (mark.within_ms) " ms" } }
                    line.moment x1=(x) x2=(x) y1=(top) y2=(height) {}
                    path.moment d={ "M" (x - 4.0) " " (top + 2.0) "h8l-4 7z" } {}
                }
            }
        }
    }

    fn announcements(&self) -> Markup {
        let top = AXIS + 2.0 * LANE;
        html! {
            text x="0" y=(top + 14.0) { "announcements" }
            @for heard in &self.report.migration.announcements {
                @let x = self.x(heard.said.at_us);
                circle.heard-at cx=(x) cy=(top + LANE / 2.0) r="4" {
                    title { (said(heard)) ", heard by " (heard.at) " at " (after(heard.said.at_us - self.report.migration.asked_us)) }
                }
            }
        }
    }

    fn flow(&self, flow: &FlowTrace, top: f64) -> Markup {
        // The scenario and phase are known.
        let name: Vec<&str> = flow.cell.as_str().split("::").skip(4).filter(|part| *part != "flow").collect();
        let name = name.join(" ");
        let short: String = name.chars().take(38).collect();
        html! {
            a href={ "#cell=" (flow.cell) } {
                title { (name) }
                text x="0" y=(top + if flow.figures.kind.is_frames() { 20.0 } else { 14.0 }) { (short) @if short.len() < name.len() { "…" } }
            }
            line.ground x1=(NAMES) x2=(WIDTH - 10.0) y1=(top + FLOW - 3.0) y2=(top + FLOW - 3.0) {}
            @if let Some(rate) = &flow.figures.rate {
                path.rate d=(self.rate(rate, top)) {}
            }
            @if let Some(throughput) = &flow.figures.throughput {
                text.unit x="0" y=(top + 28.0) { "bulk, up to " (megabytes(self.most(throughput) * 10)) "/s" }
                path.rate d=(self.rate(throughput, top)) {
                    title { "bytes in each tenth of a second; " (megabytes(throughput.per_second())) "/s on average" }
                }
            }
            @for gap in &flow.figures.gaps {
                @let end = gap.at_us + us(gap.took_ms);
                @if end > self.from_us && gap.at_us < self.to_us {
                    g {
                        title { (silence(flow)) " for " (gap.took_ms) " ms"
                            @if gap.starved_ms > 0 { ", the agent itself stood still for " (gap.starved_ms) " ms of it" }
                            @if gap.open { ", still without one when last looked at" } }
                        rect.gap x=(self.x(gap.at_us)) y=(top + 2.0) width=(self.width(gap.at_us, end)) height=(FLOW - 5.0) {}
                    }
                }
            }
            // Of the others' lengths some would lie on each other; drawn last, or another gap would lie on it.
            @if let Some(gap) = flow.figures.longest() {
                @let end = gap.at_us + us(gap.took_ms);
                @if end > self.from_us && gap.at_us < self.to_us {
                    text.gap x=(self.x(end) + 3.0) y=(top + 12.0) { (gap.took_ms) " ms" }
                }
            }
        }
    }

    /// What is drawn of a rate: when each tenth of a second began, and how many there were in it.
    fn shown<'r>(&self, rate: &'r FlowRate) -> impl Iterator<Item = (i64, u64)> + use<'r> {
        let (from_us, to_us) = (self.from_us, self.to_us);
        let tenths = (0_i64..).map(|index| rate.from_us + index * TENTH_US).zip(rate.per_100ms.iter().copied());
        tenths.filter(move |(at, _)| (from_us..to_us).contains(at))
    }

    /// The largest of them.
    fn most(&self, rate: &FlowRate) -> u64 {
        self.shown(rate).map(|(_, many)| many).max().unwrap_or(0)
    }

    /// Bars of replies or bytes, the largest as high as the lane.
    fn rate(&self, rate: &FlowRate, top: f64) -> String {
        let most = self.most(rate).max(1);
        let ground = top + FLOW - 3.0;
        let mut path = String::new();
        for (at, many) in self.shown(rate).filter(|(_, many)| *many > 0) {
            let height = (FLOW - 7.0) * many_part(many) / many_part(most);
            let width = self.width(at, at + TENTH_US);
            path.push_str(&format!("M{:.1} {ground:.1}v-{height:.1}h{width:.1}v{height:.1}z", self.x(at)));
        }
        path
    }
}

fn us(ms: u64) -> i64 {
    i64::try_from(ms).map_or(i64::MAX / 2, |ms| ms.saturating_mul(1_000))
}

#[allow(clippy::cast_precision_loss)] // times of a migration are far below 2^52 microseconds
const fn part(us: i64) -> f64 {
    us as f64
}

#[allow(clippy::cast_precision_loss)] // a few dozen at most
const fn count(index: usize) -> f64 {
    index as f64
}

#[allow(clippy::cast_precision_loss)] // replies or bytes in a tenth of a second
const fn many_part(many: u64) -> f64 {
    many as f64
}
