//! What can go wrong with reports.

use std::io;
use std::path::{Path, PathBuf};

/// A report that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}{}", path.display(), remedy(source))]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another run writes to the folder.
    #[error("another run is writing to {}: wait for it, or choose another folder with --out", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A line that is no event.
    #[error("{}:{line} is not an event of a run: {why}; the file is damaged or was not written by udn-conformance", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer program.
    #[error(
        "{}:{line} is written in format {found}, this program reads formats up to {supported}: read it with the program that wrote it, or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// The file's format.
        found: u64,
        /// The newest that this program reads.
        supported: u32,
    },
    /// No run in the file.
    #[error("{} holds no run: it does not begin with a `run-started` event", path.display())]
    NoRun {
        /// The file.
        path: PathBuf,
    },
    /// The JUnit library refused.
    #[error("cannot make {}: {why}", path.display())]
    Junit {
        /// The file.
        path: PathBuf,
        /// What the library said.
        why: String,
    },
}

impl Error {
    /// For `map_err` where a file or folder is written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }

    /// For `map_err` where a file is read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }
}

/// What to do about the failures of writing that a user can mend.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose a place on another disk (`run`: --out, `report`: --html and its like)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            "; choose a place that you may write to (`run`: --out, `report`: --html and its like)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_one_clear_message() {
        let error = Error::write(Path::new("out/events.jsonl"))(io::ErrorKind::StorageFull.into());
        assert_eq!(
            error.to_string(),
            "cannot write out/events.jsonl: no storage space; free some space or choose a place on another disk (`run`: --out, `report`: --html and its like)"
        );
    }
}
