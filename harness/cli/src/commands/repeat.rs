//! `run --repeat`: the same run again and again, to find what does not always end alike.

use std::io;
use std::path::PathBuf;

use udn_model::verdict::ExitCode;
use udn_reports::folder::EVENTS;
use udn_reports::repeats::{REPEATS, Repeats};

use super::run;
use crate::args::Run;
use crate::failure::{Failure, printed};
use crate::place;

/// Runs `args.repeat` times, each into a folder of its own, and tells which cells did not end alike. A run that could not be
/// set up does not keep the others from being tried; one that was interrupted does.
///
/// # Errors
/// The command line or a fixture is wrong; the reports cannot be written.
pub(crate) async fn repeat(args: &Run) -> Result<ExitCode, Failure> {
    let base = args.out.clone().unwrap_or_else(place::default_folder);
    let mut repeats = Repeats::default();
    let mut worst = ExitCode::Passed;
    for turn in 1..=args.repeat {
        let out = base.join(turn.to_string());
        // Other ports and nonces each time: what depends on them is found, too.
        let seed = args.seed.wrapping_add(u64::from(turn) - 1);
        let exit = run::once(&Run { out: Some(out.clone()), seed, ..args.clone() }).await?;
        repeats.add(&out.join(EVENTS)).map_err(Failure::setup)?;
        if exit != ExitCode::Passed && (worst == ExitCode::Passed || exit == ExitCode::Failed) {
            worst = exit;
        }
        if exit == ExitCode::Interrupted {
            worst = exit;
            break;
        }
    }
    let path: PathBuf = base.join(REPEATS);
    repeats.write(&path).map_err(Failure::setup)?;
    printed(repeats.tell(&mut io::stdout().lock()))?;
    printed(io::Write::write_fmt(&mut io::stdout(), format_args!("   file {}\n", path.display())))?;
    Ok(worst)
}
