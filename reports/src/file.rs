//! A file that is there entirely or not at all.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Error;

/// Writes `path` through a temporary file beside it, which is removed on any error, and replaces an older file at once.
///
/// # Errors
/// [`Error::Write`], or what `content` returns.
pub(crate) fn replace(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<&File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".udn-conformance-")
        .permissions(Permissions::from_mode(0o666)) // the umask takes away what the user does not share
        .tempfile_in(folder)
        .map_err(Error::write(path))?;
    let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file());
    content(&mut writer)?;
    writer.flush().map_err(Error::write(path))?;
    drop(writer);
    temporary.persist(path).map_err(|error| Error::write(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        replace(&path, |w| w.write_all(b"old").map_err(Error::write(Path::new("x")))).unwrap();
        let failed = replace(&path, |w| {
            w.write_all(b"half").map_err(Error::write(Path::new("x")))?;
            Err(Error::NoRun { path: "x".into() })
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
