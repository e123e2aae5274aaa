//! What an unpacked kernel package holds.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Beginning of the name of a kernel's file.
const IMAGE: &str = "vmlinuz-";

/// A kernel of an unpacked package.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub version: String,
    /// The file to boot.
    pub image: PathBuf,
    /// `lib/modules/<version>`.
    pub modules: PathBuf,
}

impl Kernel {
    /// Looks into the folder that a package such as Debian's `linux-image-<version>-cloud-amd64` was unpacked into.
    ///
    /// # Errors
    /// When there is not exactly one kernel.
    pub fn find(folder: &Path) -> Result<Self, Error> {
        let boot = folder.join("boot");
        let entries = fs::read_dir(&boot).map_err(|source| Error::Read { path: boot.clone(), source })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let versions: Vec<String> = names.filter_map(|name| name.strip_prefix(IMAGE).map(str::to_owned)).collect();
        let [version] = &versions[..] else {
            return Err(Error::Kernels { folder: folder.to_owned(), found: versions.len() });
        };
        // Where /lib is a link, packages have their files below /usr.
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| folder.join(path).join(version));
        let modules = modules.iter().find(|path| path.is_dir()).unwrap_or(&modules[0]).clone();
        Ok(Self { version: version.clone(), image: boot.join(format!("{IMAGE}{version}")), modules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_has_to_be_one_kernel() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(Kernel::find(folder.path()), Err(Error::Read { .. })));
        let boot = folder.path().join("boot");
        fs::create_dir_all(&boot).expect("a folder");
        assert!(matches!(Kernel::find(folder.path()), Err(Error::Kernels { found: 0, .. })));
        fs::write(boot.join("vmlinuz-6.1.0-x"), "").expect("a file");
        fs::write(boot.join("config-6.1.0-x"), "").expect("a file");
        assert_eq!(Kernel::find(folder.path()).expect("a kernel").version, "6.1.0-x");
        fs::write(boot.join("vmlinuz-6.1.0-y"), "").expect("a file");
        assert!(matches!(Kernel::find(folder.path()), Err(Error::Kernels { found: 2, .. })));
    }
}
