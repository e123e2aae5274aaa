//! `explain`.

use std::io::{self, BufWriter, Write};

use udn_model::plan::{Plan, PlannedCell, PlannedScenario};
use udn_reports::explain;

use crate::failure::{Failure, printed};
use crate::{args, place, select};

/// How many of several matching cells are named.
const NAMED: usize = 8;

/// Explains one cell.
///
/// # Errors
/// No cell, or more than one, matches.
pub(crate) fn explain(args: &args::Explain) -> Result<(), Failure> {
    let suites = select::suites(args.fixtures.as_deref())?;
    let plan = select::everything(&suites)?;
    let (scenario, planned) = find(&plan, &args.cell)?;
    let baseline = select::baseline(args.baseline.as_deref(), args.fixtures.as_deref(), &suites)?;
    let folder = args.out.clone().unwrap_or_else(place::default_folder);
    let seen = match place::newest_log(&folder) {
        Some(log) => Some(explain::last_seen(&log, planned.cell.id.as_str()).map_err(Failure::usage)?),
        None => None,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = explain::explain(&mut out, &planned.cell, &scenario.scenario, seen.as_ref());
    let written = written.and_then(|()| explain::known(&mut out, &planned.cell, &baseline));
    printed(written.and_then(|()| out.flush()))
}

/// The cell of this id, or the only one with this text in its id.
fn find<'a>(plan: &'a Plan, word: &str) -> Result<(&'a PlannedScenario, &'a PlannedCell), Failure> {
    let all = || {
        let phases =
            plan.scenarios.iter().flat_map(|scenario| scenario.phases.iter().map(move |phase| (scenario, phase)));
        phases.flat_map(|(scenario, phase)| phase.cells.iter().map(move |cell| (scenario, cell)))
    };
    if let Some(found) = all().find(|(_, planned)| planned.cell.id.as_str() == word) {
        return Ok(found);
    }
    let mut found: Vec<_> = all().filter(|(_, planned)| planned.cell.id.as_str().contains(word)).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let known: Vec<String> = all().map(|(_, planned)| planned.cell.id.to_string()).collect();
            let near =
                select::alike(word, &known).first().map_or_else(String::new, |id| format!("; did you mean {id}?"));
            Err(Failure::usage(anyhow::anyhow!(
                "no cell has the id `{word}`, nor a part of it; `udn-conformance list --cells` shows all{near}"
            )))
        }
        several => {
            let named: Vec<_> =
                found.iter().take(NAMED).map(|(_, planned)| format!("\n  {}", planned.cell.id)).collect();
            let more = if several > NAMED { format!("\n  … and {} more", several - NAMED) } else { String::new() };
            Err(Failure::usage(anyhow::anyhow!(
                "`{word}` is a part of {several} cells' ids; name one of them:{}{more}",
                named.concat()
            )))
        }
    }
}
