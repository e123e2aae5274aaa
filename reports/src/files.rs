//! All files of a run but its log, made from the log: a run's at its end, or an older run's again. The log is read once
//! for all of them, and nobody keeps its cells: a run may have tens of thousands.

use std::path::{Path, PathBuf};

use udn_model::event::{CellResult, EventKind};

use crate::compare::Comparison;
use crate::folder::{CONFORMANCE, HTML, JUNIT, MARKDOWN, OPENMETRICS, REPORT};
use crate::jsonl::Reader;
use crate::run::RunReport;
use crate::{Error, conformance, file, html, json, junit, markdown, openmetrics};

/// Where which file goes; `None`: it is not made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The page for people.
    pub html: Option<PathBuf>,
    /// The summary for a job's page.
    pub markdown: Option<PathBuf>,
    /// The report for machines.
    pub json: Option<PathBuf>,
    /// The report for whatever reads JUnit.
    pub junit: Option<PathBuf>,
    /// Figures for a trend.
    pub openmetrics: Option<PathBuf>,
    /// Which profiles hold.
    pub conformance: Option<PathBuf>,
}

/// What the files show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Of `junit.xml`.
    pub junit: junit::Options,
    /// What changed since another run, where there is one to compare with.
    pub since: Option<&'a Comparison>,
}

/// What takes a run's cells one by one.
pub(crate) trait Sink {
    /// The next cell.
    fn cell(&mut self, result: &CellResult) -> Result<(), Error>;

    /// After the last one.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

impl Files {
    /// All of them, by their usual names.
    #[must_use]
    pub fn all_in(folder: &Path) -> Self {
        let file = |name| Some(folder.join(name));
        Self {
            html: file(HTML),
            markdown: file(MARKDOWN),
            json: file(REPORT),
            junit: file(JUNIT),
            openmetrics: file(OPENMETRICS),
            conformance: file(CONFORMANCE),
        }
    }

    /// Where they go.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.html, &self.markdown, &self.json, &self.junit, &self.openmetrics, &self.conformance]
            .into_iter()
            .flatten()
            .map(AsRef::as_ref)
    }
}

/// Makes files of the run whose log is `events`. Older ones are replaced at once.
///
/// # Errors
/// A file cannot be written, or the log not be read.
pub fn write(files: &Files, report: &RunReport, events: &Path, options: Options<'_>) -> Result<(), Error> {
    let mut sinks: Vec<Box<dyn Sink + '_>> = Vec::new();
    if let Some(path) = &files.json {
        sinks.push(Box::new(json::Writer::begin(path, report)?));
    }
    if let Some(path) = &files.junit {
        sinks.push(Box::new(junit::Writer::begin(path, report, options.junit)));
    }
    if let Some(path) = &files.html {
        sinks.push(Box::new(html::Writer::begin(path, report, options.since)?));
    }
    if let Some(path) = &files.conformance {
        sinks.push(Box::new(conformance::Writer::begin(path, report)));
    }
    if !sinks.is_empty() {
        for event in Reader::open(events)? {
            if let EventKind::CellFinished(result) = event?.kind {
                sinks.iter_mut().try_for_each(|sink| sink.cell(&result))?;
            }
        }
    }
    sinks.into_iter().try_for_each(Sink::finish)?;
    if let Some(path) = &files.markdown {
        file::replace(path, &markdown::summary(report, options.since))?;
    }
    if let Some(path) = &files.openmetrics {
        file::replace(path, &openmetrics::text(report))?;
    }
    Ok(())
}
