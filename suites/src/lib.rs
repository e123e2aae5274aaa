//! What must hold, area by area. Each file is one suite: scenarios as data; nothing here waits or executes.
//!
//! Two kinds of scenario stand side by side. *Full matrices* probe every vantage point against every target of a world and
//! take their expectations from the oracle. Scenarios *written by hand* from the documents carry their own; the test
//! `double_entry` fails where the oracle disagrees with them.

mod addressing;
mod admission;
mod backends;
mod egress;
mod isolation;
mod membership;
mod objects;
mod phases;
mod policy;
mod recreate;
mod restart;
mod services;
mod vm;
mod workshop;

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::scenario::Suite;

/// The names of all suites, in order.
pub const NAMES: [&str; 8] = ["workshop", "isolation", "addressing", "services", "policy", "egress", "objects", "vm"];

/// All suites, in order.
///
/// # Errors
/// A fixture that cannot be read, with its place.
pub fn all(fixtures: &Fixtures) -> Result<Vec<Suite>, FixtureError> {
    Ok(vec![
        workshop::suite(fixtures)?,
        isolation::suite(fixtures)?,
        addressing::suite(fixtures)?,
        services::suite(fixtures)?,
        policy::suite(fixtures)?,
        egress::suite(fixtures)?,
        objects::suite(fixtures)?,
        vm::suite(fixtures)?,
    ])
}
