//! `run --repeat`: the same run again and again, to find what does not always end alike.

use std::io::{self, Write};

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
        worst = worse(worst, exit);
        if exit == ExitCode::Interrupted {
            break;
        }
    }
    let path = base.join(REPEATS);
    repeats.write(&path).map_err(Failure::setup)?;
    let mut out = io::stdout().lock();
    printed(repeats.tell(&mut out).and_then(|()| writeln!(out, "   file {}", path.display())))?;
    Ok(worst)
}

/// What both together exit with: an interruption ended them, then what fails says most.
fn worse(one: ExitCode, other: ExitCode) -> ExitCode {
    use ExitCode::{Errors, Failed, Interrupted, NothingSelected, Passed, SetupFailed, Usage};
    let order = [Interrupted, Failed, SetupFailed, Errors, Usage, NothingSelected, Passed];
    order.into_iter().find(|exit| [one, other].contains(exit)).unwrap_or(Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_run_counts() {
        assert_eq!(worse(ExitCode::Passed, ExitCode::Passed), ExitCode::Passed);
        assert_eq!(worse(ExitCode::Errors, ExitCode::Passed), ExitCode::Errors);
        assert_eq!(worse(ExitCode::SetupFailed, ExitCode::Failed), ExitCode::Failed);
        assert_eq!(worse(ExitCode::Failed, ExitCode::Interrupted), ExitCode::Interrupted);
    }
}
