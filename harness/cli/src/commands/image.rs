//! `image`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use udn_guest::{Kernel, image as guest};
use udn_lab_sys::packages::machines;

use crate::args;
use crate::failure::{Failure, printed};
use crate::reporting::Reporting;
use crate::target::words;

/// Writes the archive of the guests' image.
///
/// # Errors
/// There is no kernel, or the archive cannot be written.
pub(crate) async fn image(args: &args::Image) -> Result<(), Failure> {
    let folder = match &args.kernel_package {
        Some(folder) => folder.clone(),
        None => fetched().await?,
    };
    let kernel = Kernel::find(&folder).map_err(Failure::usage)?;
    let archive = guest::archive(udn_binaries::AGENT, &kernel).map_err(Failure::usage)?;
    let path = &args.archive;
    fs::write(path, &archive)
        .with_context(|| format!("cannot write the image to {}; choose a place with room", path.display()))
        .map_err(Failure::setup)?;
    let (name, megabytes) = (guest::NAME, archive.len() / 1_000_000);
    let told = writeln!(io::stdout(), "{}: {name} with Linux {}, {megabytes} MB", path.display(), kernel.version);
    printed(told)
}

/// The kernel that the lab's guests have, fetched where it is not there yet.
async fn fetched() -> Result<PathBuf, Failure> {
    let reporting = Reporting::progress_only();
    let stage = reporting.events().stage("kernel");
    let telling = stage.clone();
    let ensure = move || machines::ensure(&udn_lab::default_folder(), &|progress| telling.progress(words(&progress)));
    let found = tokio::task::spawn_blocking(ensure).await.context("fetching a kernel ended early");
    let found = found.map_err(Failure::setup).and_then(|found| found.map_err(Failure::setup));
    stage.end(found.as_ref().err());
    reporting.end().await;
    Ok(found?.kernel)
}
