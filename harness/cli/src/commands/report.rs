//! `report`.

use std::io::{self, Write};

use anyhow::anyhow;
use udn_model::verdict::Allow;
use udn_reports::compare::Comparison;
use udn_reports::files::{self, Files, Options};
use udn_reports::run::RunReport;
use udn_reports::{Error, folder, junit};

use crate::failure::{Failure, printed};
use crate::{args, place};

/// Makes a run's files again.
///
/// # Errors
/// The log cannot be read, or a file not be written.
pub(crate) fn report(args: &args::Report) -> Result<(), Failure> {
    let log = match &args.run {
        Some(run) => folder::log_of(run),
        None => {
            let folder = place::default_folder();
            place::newest_log(&folder).ok_or_else(|| {
                Failure::usage(anyhow!("there is no run in {}: name the folder of one", folder.display()))
            })?
        }
    };
    let report = RunReport::read(&log).map_err(failure)?;
    let since = match &args.since {
        Some(older) => Some(Comparison::read(&folder::log_of(older), &log).map_err(failure)?),
        None => None,
    };
    let allow = Allow { unstable: args.allow_unstable, fixed: args.allow_fixed };
    let junit = junit::Options { cells: args.junit_cells, allow };
    let files = files_of(args, &log);
    files::write(&files, &report, &log, Options { junit, since: since.as_ref() }).map_err(failure)?;
    let mut out = io::stdout().lock();
    printed(files.paths().try_for_each(|path| writeln!(out, "{}", path.display())))
}

/// Those asked for; all of them where none is.
fn files_of(args: &args::Report, log: &std::path::Path) -> Files {
    let asked = Files {
        html: args.html.clone(),
        markdown: args.markdown.clone(),
        json: args.json.clone(),
        junit: args.junit.clone(),
        openmetrics: args.openmetrics.clone(),
        conformance: args.conformance.clone(),
    };
    if asked == Files::default() { Files::all_in(log.parent().unwrap_or(log)) } else { asked }
}

/// What cannot be read was wrongly named; what cannot be written is no fault of the command line.
pub(super) fn failure(error: Error) -> Failure {
    match error {
        Error::Write { .. } | Error::Junit { .. } | Error::Busy { .. } => Failure::setup(error),
        Error::Read { .. } | Error::Malformed { .. } | Error::NewerFormat { .. } | Error::NoRun { .. } => {
            Failure::usage(error)
        }
    }
}
