//! The image `udn-conformance.local/guest`: kernel and first file system of every guest.

use std::path::{Path, PathBuf};

use udn_guest::Kernel;
use udn_lab_sys::packages::Machines;

use crate::error::Error;

/// Its name.
pub(crate) const IMAGE: &str = "udn-conformance.local/guest";

/// Kernel and initramfs, as files in the lab.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Image {
    /// Makes it below `folder`. Blocks.
    pub(crate) fn make(machines: &Machines, folder: &Path) -> Result<Self, Error> {
        let failed = |error: udn_guest::Error| Error::Guest(error.to_string());
        let kernel = Kernel::find(&machines.kernel).map_err(failed)?;
        let bytes = udn_guest::initramfs(udn_binaries::AGENT, &kernel).map_err(failed)?;
        let initramfs = folder.join("initramfs");
        let write = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&initramfs, bytes));
        write.map_err(Error::file(format!("write {}", initramfs.display())))?;
        Ok(Self { kernel: kernel.image, initramfs })
    }

    /// Whether an image's reference means this one.
    pub(crate) fn is(reference: &str) -> bool {
        let repository = reference.split(['@']).next().unwrap_or(reference);
        let repository = match repository.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => repository,
        };
        repository == IMAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_known_by_its_repository() {
        for name in ["udn-conformance.local/guest", "udn-conformance.local/guest:latest", "udn-conformance.local/guest@sha256:0"] {
            assert!(Image::is(name), "{name}");
        }
        assert!(!Image::is("quay.io/guest:latest"));
    }
}
