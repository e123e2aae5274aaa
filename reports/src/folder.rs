//! The output folder: `events.jsonl` and the files that are made from it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::jsonl::Writer;
use crate::run::RunReport;
use crate::{Error, files};

/// The log of events.
pub const EVENTS: &str = "events.jsonl";
/// The report for machines.
pub const REPORT: &str = "report.json";
/// The report for whatever reads JUnit.
pub const JUNIT: &str = "junit.xml";

/// The page for people.
pub const HTML: &str = "report.html";
/// The summary for a job's page.
pub const MARKDOWN: &str = "summary.md";
/// Figures for a trend.
pub const OPENMETRICS: &str = "metrics.txt";
/// Which profiles hold.
pub const CONFORMANCE: &str = "conformance.yaml";

/// How many neighbours of a busy folder are tried.
const NEIGHBOURS: u32 = 64;

/// A folder that belongs to one run as long as its [`Writer`] lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if need be, takes it for this run and removes an older run's files, so that a run which is
    /// killed never leaves somebody else's report behind.
    ///
    /// # Errors
    /// [`Error::Busy`] while another run writes there; [`Error::Write`].
    pub fn create(path: &Path) -> Result<(Self, Writer), Error> {
        fs::create_dir_all(path).map_err(Error::write(path))?;
        let writer = Writer::create(&path.join(EVENTS)).map_err(|error| match error {
            Error::Busy { .. } => Error::Busy { path: path.into() },
            other => other,
        })?;
        for stale in [REPORT, JUNIT, HTML, MARKDOWN, OPENMETRICS, CONFORMANCE] {
            let stale = path.join(stale);
            match fs::remove_file(&stale) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::write(&stale)(error)),
                _ => {}
            }
        }
        Ok((Self { path: path.into() }, writer))
    }

    /// As [`Folder::create`], but where another run writes there, takes `path/2`, `path/3` … instead: for the default
    /// folder, which nobody chose.
    ///
    /// # Errors
    /// As [`Folder::create`].
    pub fn create_near(path: &Path) -> Result<(Self, Writer), Error> {
        let mut tried = Self::create(path);
        for neighbour in 2..NEIGHBOURS {
            if !matches!(tried, Err(Error::Busy { .. })) {
                break;
            }
            tried = Self::create(&path.join(neighbour.to_string()));
        }
        tried
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes all files from the log.
    ///
    /// # Errors
    /// A file cannot be written, or the log not be read.
    pub fn finish(&self, report: &RunReport, options: files::Options<'_>) -> Result<(), Error> {
        files::write(&Files::all_in(&self.path), report, &self.path.join(EVENTS), options)
    }
}

/// The log that a path means: itself, or the one in that folder.
#[must_use]
pub fn log_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(EVENTS) } else { path.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_writes_to_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let (first, lock) = Folder::create(&path).unwrap();
        assert!(matches!(Folder::create(&path), Err(Error::Busy { path: busy }) if busy == first.path()));
        let (second, _lock) = Folder::create_near(&path).unwrap();
        assert_eq!(second.path(), path.join("2"));
        drop(lock);
        assert_eq!(Folder::create_near(&path).unwrap().0.path(), path);
    }

    #[test]
    fn an_older_report_goes_when_a_run_begins() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(REPORT), "{}").unwrap();
        let _run = Folder::create(root.path()).unwrap();
        assert!(!root.path().join(REPORT).exists());
    }

    #[test]
    fn a_run_leaves_all_its_files() {
        let root = tempfile::tempdir().unwrap();
        let (folder, mut log) = Folder::create(root.path()).unwrap();
        let mut report = RunReport::default();
        for event in crate::testing::failing_run() {
            log.write(&event).unwrap();
            report.apply(&event);
        }
        folder.finish(&report, files::Options::default()).unwrap();
        for name in [EVENTS, REPORT, JUNIT, HTML, MARKDOWN, OPENMETRICS, CONFORMANCE] {
            assert!(root.path().join(name).metadata().unwrap().len() > 0, "{name}");
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = Folder::create(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}", path.display())), "{error}");
    }
}
