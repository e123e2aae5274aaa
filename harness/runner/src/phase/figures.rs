//! What flows counted in a phase, judged at its end; and the migrations that they went through.

use udn_model::cell::{Cell, Check};
use udn_model::event::{EventKind, FlowTrace, MigrationReport};
use udn_model::flow::{self, FlowJudged};
use udn_model::migration::Migration;
use udn_model::observation::{Attempt, Evidence, Outcome};
use udn_model::verdict::{Counts, Verdict};

use super::{Phase, finish};
use crate::baseline;
use crate::budget::millis;
use crate::history::{Conclusion, Ending};

impl Phase<'_> {
    /// Tells the migrations of the phase with its flows' figures.
    pub(super) async fn tell_migrations(&self) -> Vec<Migration> {
        let migrations = self.world.migrations().await;
        for migration in &migrations {
            let flows = self.cells.iter().zip(&self.evidence).filter_map(|(cell, evidence)| {
                let figures = evidence.flow.as_deref().cloned()?;
                Some(FlowTrace { cell: cell.id.clone(), split: migration.split(&figures), figures })
            });
            let report = MigrationReport {
                suite: self.name.suite.into(),
                scenario: self.name.scenario.into(),
                phase: self.name.phase.into(),
                migration: migration.clone(),
                flows: flows.collect(),
            };
            self.shared.emitter.emit(EventKind::Migrated(Box::new(report)));
        }
        migrations
    }

    /// Judges what is promised of figures. They are not waited for: they are those of the rounds that there were.
    pub(super) fn judge_figures(
        &self,
        figures: &[&Cell],
        ending: &Ending,
        migrations: &[Migration],
        counts: &mut Counts,
    ) {
        let at_ms = self.at_ms(tokio::time::Instant::now());
        for cell in figures {
            let Check::Figure { promise, .. } = &cell.check else { continue };
            let flow = self.cells.iter().position(|flow| flow.is_flow_of(cell));
            let evidence = flow.map(|flow| self.evidence[flow].clone()).unwrap_or_default();
            let judged = flow::judge(*promise, evidence.flow.as_deref(), millis(self.shared.options.outage_budget));
            let split = evidence.flow.as_ref().and_then(|flow| migrations.iter().rev().find_map(|it| it.split(flow)));
            let told = |text: &str| match split {
                Some(split) if *promise == flow::FlowPromise::Outage => format!("{text} ({split})"),
                _ => text.to_owned(),
            };
            let (conclusion, outcome) = conclude(judged, told);
            let conclusion = match ending {
                Ending::Done { .. } => baseline::apply(&self.options.baseline, cell, conclusion),
                Ending::CutShort { why } => {
                    Conclusion { verdict: Verdict::Error, reason: format!("not judged: {why}"), settled_ms: None }
                }
            };
            counts.add(conclusion.verdict);
            let Conclusion { verdict, reason, .. } = conclusion;
            let attempt = Attempt { first_ms: at_ms, last_ms: at_ms, count: 1, outcome, arrived: 0 };
            let evidence = Evidence { notes: Vec::new(), ..evidence };
            finish(self.shared, cell, (verdict, reason, None), vec![attempt], evidence);
        }
    }
}

fn conclude(judged: FlowJudged, told: impl Fn(&str) -> String) -> (Conclusion, Outcome) {
    let checked = |holds, found: &str| Outcome::Checked { holds, found: told(found) };
    let (verdict, reason, outcome) = match judged {
        FlowJudged::Holds(found) => (Verdict::Pass, String::new(), checked(true, &found)),
        FlowJudged::Broken(why) => (Verdict::Fail, told(&why), checked(false, &why)),
        FlowJudged::Unknown(why) => (Verdict::Error, why.clone(), Outcome::Unresolved { why }),
    };
    (Conclusion { verdict, reason, settled_ms: None }, outcome)
}
