//! Turns a plan into events: provisions worlds, runs phases, probes in rounds, settles, holds and judges.
//!
//! Pure orchestration: what is needed of a cluster is the trait [`cluster::Cluster`], so nothing here knows Kubernetes,
//! and the tests run against a scripted one.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cluster`] | what the runner asks of a cluster: worlds, probes, arrivals, claims, evidence |
//! | [`options`] | what a user may choose: rounds, timeouts, deadlines, what is kept |
//! | [`run`] | the whole run: worlds side by side, scenarios in them, totals, exit code |
//! | [`judge`] | pure: what one observation means for one cell |
//! | [`history`] | pure: what all observations of a cell add up to: settled, flapped, violated, verdict |
//!
//! Inside: `turns` says which scenarios probe at once, `scenario` runs the phases of one, `phase` one phase, `watch` probes from the first packet,
//! `round` sends one round, `control` finds positive controls, `arrivals` matches packets at the far side with probes,
//! `series` judges many connections together, `resolve` turns names into addresses, `question` cells about names into
//! questions, `ports` hands out source ports, `twins` the same ones to pods of the same address, `window` limits what is on
//! its way, `budget` adds
//! up where time went, `emit` stamps events.

mod arrivals;
mod baseline;
mod budget;
pub mod cluster;
mod control;
mod emit;
pub mod history;
pub mod judge;
pub mod options;
mod phase;
mod ports;
mod question;
mod resolve;
mod round;
pub mod run;
mod scenario;
mod series;
mod turns;
mod twins;
mod watch;
mod window;

#[cfg(test)]
mod fake;

pub use cluster::{Cluster, World};
pub use options::{Keep, Options};
pub use run::{Header, Summary, run};
