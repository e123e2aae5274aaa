//! Reporters: what a run reported, made readable. Everything here consumes [`udn_model::event::Event`] and nothing
//! else, so that a report can be made again from an old run's `events.jsonl`, without a cluster. Nobody else prints.
//!
//! | module | what it holds |
//! |---|---|
//! | [`folder`] | the output folder: its files, and that one run at a time writes there |
//! | [`jsonl`] | `events.jsonl`: the log that all other files are made from |
//! | [`run`] | a run folded from its events: scenarios, phases, counts, findings |
//! | [`files`] | all files of a run, made from its log |
//! | [`html`] | `report.html` |
//! | [`markdown`] | `summary.md` |
//! | [`json`] | `report.json` |
//! | [`junit`] | `junit.xml` |
//! | [`openmetrics`] | `metrics.txt` |
//! | `conformance` | `conformance.yaml` |
//! | [`compare`] | two runs, compared |
//! | [`terminal`] | result lines, truth tables, totals, progress |
//! | [`listing`] | `list` and `plan` |
//! | [`explain`] | one cell: its rule, what is probed, what was seen last |
//! | [`migrations`] | migrations of VMs and what they were to flows |
//! | [`observed`] | short words for what became of a cell |
//! | [`figures`] | medians, quantiles and spreads |
//! | [`text`] | numbers and durations for people |

pub mod compare;
mod conformance;
pub mod error;
pub mod explain;
pub mod figures;
mod file;
pub mod files;
pub mod folder;
pub mod html;
pub mod json;
pub mod jsonl;
pub mod junit;
pub mod listing;
pub mod markdown;
pub mod migrations;
pub mod observed;
pub mod openmetrics;
pub mod repeats;
pub mod run;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod text;

pub use error::Error;
