//! `image`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use udn_guest::{Kernel, image as guest};

use crate::args;
use crate::failure::{Failure, printed};

/// Writes the archive of the guests' image.
///
/// # Errors
/// There is no kernel, or the archive cannot be written.
pub(crate) fn image(args: &args::Image) -> Result<(), Failure> {
    let kernel = Kernel::find(&kernel_package(args)?).map_err(Failure::usage)?;
    let archive = guest::archive(udn_binaries::AGENT, &kernel).map_err(Failure::usage)?;
    let path = &args.archive;
    fs::write(path, &archive)
        .with_context(|| format!("cannot write the image to {}; choose a place with room", path.display()))
        .map_err(Failure::setup)?;
    let (name, megabytes) = (guest::NAME, archive.len() / 1_000_000);
    let told = writeln!(io::stdout(), "{}: {name} with Linux {}, {megabytes} MB", path.display(), kernel.version);
    printed(told)
}

/// The folder with the kernel's package.
fn kernel_package(args: &args::Image) -> Result<PathBuf, Failure> {
    args.kernel_package.clone().ok_or_else(|| {
        let words = "cannot choose a kernel for the image: say --kernel-package DIR; fill the folder by \
                     `apt-get download` and `dpkg -x` of a package such as linux-image-cloud-amd64 names";
        Failure::usage(anyhow!(words))
    })
}
