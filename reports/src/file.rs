//! A file that is there entirely or not at all.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::Error;

/// A file that is being written beside the one that it will replace, and is removed if it never does.
#[derive(Debug)]
pub(crate) struct Replacement {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
}

impl Replacement {
    /// Begins to write what will be `path`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn begin(path: &Path) -> Result<Self, Error> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".udn-conformance-")
            .permissions(Permissions::from_mode(0o666)) // the umask takes away what the user does not share
            .tempfile_in(folder)
            .map_err(Error::write(path))?;
        Ok(Self { path: path.into(), out: BufWriter::with_capacity(1 << 16, temporary) })
    }

    /// Goes on with these bytes.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn put(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        self.out.write_all(bytes.as_ref()).map_err(Error::write(&self.path))
    }

    /// Goes on with this value, on one line.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn put_json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.out, value).map_err(|error| Error::write(&self.path)(error.into()))
    }

    /// Puts the file in its place, at once.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(crate) fn commit(self) -> Result<(), Error> {
        let Self { path, out } = self;
        let temporary = out.into_inner().map_err(|error| Error::write(&path)(error.into_error()))?;
        temporary.persist(&path).map_err(|error| Error::write(&path)(error.error))?;
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Replaces `path` by this text, at once.
///
/// # Errors
/// [`Error::Write`].
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = Replacement::begin(path)?;
    file.put(text)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_committed_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        replace(&path, "old").unwrap();
        let mut half = Replacement::begin(&path).unwrap();
        half.put("half").unwrap();
        drop(half);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
