//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// What can go wrong. Messages say what was attempted, on what, and what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}; is the folder an unpacked kernel package?", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no kernel in the folder, or more than one.
    #[error(
        "cannot choose a kernel in {}: there are {found} files boot/vmlinuz-*; unpack one package linux-image-*-cloud-* \
         (dpkg -x) into an empty folder", folder.display()
    )]
    Kernels {
        /// Where.
        folder: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// A module is neither a file nor part of the kernel.
    #[error(
        "cannot find the module {name} of the kernel {version}, which a guest needs; take a kernel for virtual machines, \
         such as Debian's linux-image-cloud-amd64"
    )]
    NoModule {
        /// Its name.
        name: String,
        /// Of which kernel.
        version: String,
    },
    /// A module is compressed in a way that is not known, or badly.
    #[error("cannot unpack the module {}: {reason}; .ko and .ko.xz can be unpacked", path.display())]
    Unpack {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
