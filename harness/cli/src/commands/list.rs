//! `list` and `plan`.

use std::io::{self, BufWriter, Write};

use udn_model::plan::{Environment, Plan};
use udn_model::scenario::Suite;
use udn_reports::listing::{self, Mode};

use crate::args::{self, Format};
use crate::failure::{Failure, printed};
use crate::{select, target};

/// What exists.
///
/// # Errors
/// A filter or fixture is wrong.
pub(crate) fn list(args: &args::List) -> Result<(), Failure> {
    let suites = select::suites(args.selection.fixtures.as_deref())?;
    let plan = select::plan(&suites, &args.selection, &Environment::complete())?;
    print(&plan, &suites, Mode::List, args.format, args.cells)
}

/// What would run.
///
/// # Errors
/// A filter or fixture is wrong, or the cluster cannot be asked.
pub(crate) async fn plan(args: &args::Plan) -> Result<(), Failure> {
    let suites = select::suites(args.selection.fixtures.as_deref())?;
    let environment = target::environment(&args.target, args.no_host_network).await?;
    let plan = select::plan(&suites, &args.selection, &environment)?;
    print(&plan, &suites, Mode::Plan, args.format, args.cells)
}

fn print(plan: &Plan, suites: &[Suite], mode: Mode, format: Format, cells: bool) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match format {
        Format::Json => listing::json(&mut out, plan, mode),
        Format::Text => listing::text(&mut out, plan, suites, mode, cells),
    };
    printed(written.and_then(|()| out.flush()))
}
