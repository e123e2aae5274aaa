//! `diff`.

use std::io::{self, BufWriter, Write};

use udn_model::verdict::ExitCode;
use udn_reports::compare::{self, Comparison};
use udn_reports::folder;

use super::report::failure;
use crate::args::{self, Format};
use crate::failure::{Failure, printed};

/// Compares two runs. The exit code says whether the newer one is worse.
///
/// # Errors
/// A log cannot be read.
pub(crate) fn diff(args: &args::Diff) -> Result<ExitCode, Failure> {
    let (before, after) = (folder::log_of(&args.before), folder::log_of(&args.after));
    let comparison = Comparison::read(&before, &after).map_err(failure)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match args.format {
        Format::Text => out.write_all(compare::text(&comparison).as_bytes()),
        Format::Json => serde_json::to_writer_pretty(&mut out, &comparison)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n")),
    };
    printed(written.and_then(|()| out.flush()))?;
    Ok(if comparison.worse {
        ExitCode::Failed
    } else if comparison.after.finished {
        ExitCode::Passed
    } else {
        ExitCode::Errors
    })
}
