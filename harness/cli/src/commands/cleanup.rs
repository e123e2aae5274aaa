//! `cleanup`.

use std::io::{self, Write};

use udn_cluster::{Cleaned, Connect};
use udn_model::verdict::ExitCode;
use udn_reports::text;

use crate::args::{self, TargetKind};
use crate::failure::{Failure, printed};
use crate::target;

/// Removes what runs left.
///
/// # Errors
/// The cluster cannot be reached, or something cannot be removed.
pub(crate) async fn cleanup(args: &args::Cleanup) -> Result<ExitCode, Failure> {
    target::check(&args.target)?;
    let kubeconfig = match args.target.target {
        TargetKind::Kube => args.target.kubeconfig.clone(),
        TargetKind::Lab => {
            Some(udn_lab::find(&udn_lab::default_folder(), &args.target.lab).map_err(Failure::usage)?.kubeconfig())
        }
    };
    let context = args.target.context.clone();
    let connect = Connect { kubeconfig, context, run: udn_cluster::new_run_id(), ..Connect::default() };
    let cleaned = target::kube(connect).await?.cleanup(args.run.as_deref()).await.map_err(Failure::setup)?;
    printed(print(&cleaned))?;
    Ok(ExitCode::Passed)
}

fn print(cleaned: &Cleaned) -> io::Result<()> {
    let mut out = io::stdout();
    for object in &cleaned.removed {
        writeln!(out, "removed {object}")?;
    }
    let runs: Vec<_> = cleaned.runs.iter().map(String::as_str).collect();
    match cleaned.removed.len() {
        0 => writeln!(out, "nothing of a run is left"),
        objects => writeln!(
            out,
            "{} of {}: {}",
            text::count(objects, "object"),
            text::count(runs.len(), "run"),
            runs.join(", ")
        ),
    }
}
