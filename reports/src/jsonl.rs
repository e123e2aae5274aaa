//! `events.jsonl`: one event a line, written as it comes. All other files can be made from it again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use udn_model::event::{Event, EventKind, FORMAT};

use crate::Error;

/// Appends events. Locks the file while it lives.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    line: Vec<u8>,
}

impl Writer {
    /// Begins a log; an older one is emptied.
    ///
    /// # Errors
    /// [`Error::Busy`] while another run writes to the file; [`Error::Write`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        // Not truncated on opening: it may be another run's.
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::write(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(Error::write(path)(source)),
        }
        file.set_len(0).map_err(Error::write(path))?;
        Ok(Self { path: path.into(), file, line: Vec::new() })
    }

    /// Appends an event; on return the system has it, so that a killed program loses nothing.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&mut self, event: &Event) -> Result<(), Error> {
        self.line.clear();
        let json = serde_json::to_writer(&mut self.line, event);
        json.map_err(|error| Error::write(&self.path)(error.into()))?;
        self.line.push(b'\n');
        self.file.write_all(&self.line).map_err(Error::write(&self.path))
    }
}

/// Reads a log, event by event.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    line: usize,
    text: String,
    truncated: bool,
    done: bool,
}

impl Reader {
    /// Opens a log.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::read(path))?;
        let input = BufReader::with_capacity(1 << 16, file);
        Ok(Self { path: path.into(), input, line: 0, text: String::new(), truncated: false, done: false })
    }

    /// After the last event: a warning where the last line was cut in the middle, as by a kill or a full disk.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.truncated.then(|| {
            format!("{}:{} was cut in the middle and left out: the run did not finish", self.path.display(), self.line)
        })
    }

    fn read(&mut self) -> Result<Option<Event>, Error> {
        loop {
            self.text.clear();
            let mut bytes = std::mem::take(&mut self.text).into_bytes();
            let read = self.input.read_until(b'\n', &mut bytes).map_err(Error::read(&self.path))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            let whole = bytes.ends_with(b"\n");
            match String::from_utf8(bytes) {
                Ok(text) => self.text = text,
                Err(_) if !whole => return self.cut(),
                Err(_) => return Err(self.malformed("it is not UTF-8")),
            }
            if self.text.trim().is_empty() {
                continue;
            }
            return match serde_json::from_str::<Event>(&self.text) {
                Ok(event) => self.checked(event).map(Some),
                Err(_) if !whole => self.cut(),
                Err(error) => Err(self.newer().unwrap_or_else(|| self.malformed(&error.to_string()))),
            };
        }
    }

    fn cut(&mut self) -> Result<Option<Event>, Error> {
        self.truncated = true;
        Ok(None)
    }

    fn checked(&self, event: Event) -> Result<Event, Error> {
        match event.kind {
            EventKind::RunStarted { format, .. } if format > FORMAT => Err(self.newer_format(u64::from(format))),
            _ => Ok(event),
        }
    }

    /// A newer format may look different altogether: its number is looked for before the line is called malformed.
    fn newer(&self) -> Option<Error> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        let head: Head = serde_json::from_str(&self.text).ok()?;
        (head.format > u64::from(FORMAT)).then(|| self.newer_format(head.format))
    }

    fn newer_format(&self, found: u64) -> Error {
        Error::NewerFormat { path: self.path.clone(), line: self.line, found, supported: FORMAT }
    }

    fn malformed(&self, why: &str) -> Error {
        Error::Malformed { path: self.path.clone(), line: self.line, why: why.into() }
    }
}

impl Iterator for Reader {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn read(text: &[u8]) -> (Vec<Event>, Option<String>, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let (mut events, mut error) = (Vec::new(), None);
        for event in &mut reader {
            match event {
                Ok(event) => events.push(event),
                Err(found) => error = Some(found.to_string().replace(&path.display().to_string(), "events.jsonl")),
            }
        }
        (events, error, reader.warning().map(|w| w.replace(&path.display().to_string(), "events.jsonl")))
    }

    fn written(events: &[Event]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut writer = Writer::create(&path).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let events = testing::failing_run();
        let (back, error, warning) = read(&written(&events));
        assert_eq!(back, events);
        assert_eq!((error, warning), (None, None));
    }

    #[test]
    fn a_cut_last_line_is_a_warning() {
        let events = testing::failing_run();
        let mut text = written(&events);
        text.truncate(text.len() - 7);
        let (back, error, warning) = read(&text);
        assert_eq!(back, events[..events.len() - 1]);
        assert_eq!(error, None);
        let line = events.len();
        assert_eq!(
            warning.unwrap(),
            format!("events.jsonl:{line} was cut in the middle and left out: the run did not finish")
        );
    }

    #[test]
    fn a_last_line_without_a_newline_counts_when_it_is_whole() {
        let events = testing::failing_run();
        let mut text = written(&events);
        text.pop();
        assert_eq!(read(&text), (events, None, None));
    }

    #[test]
    fn a_damaged_line_is_named() {
        let mut text = written(&testing::failing_run()[..1]);
        text.extend_from_slice(b"{\"at_us\": 3}\n");
        let (back, error, _) = read(&text);
        assert_eq!(back.len(), 1);
        let error = error.unwrap();
        assert!(error.starts_with("events.jsonl:2 is not an event of a run: "), "{error}");
    }

    #[test]
    fn a_newer_format_is_refused_with_its_place() {
        let (_, error, _) = read(b"{\"at_us\":1,\"event\":\"run-begun\",\"format\":7}\n{\"x\":1}\n");
        assert_eq!(
            error.unwrap(),
            "events.jsonl:1 is written in format 7, this program reads formats up to 1: read it with the program that wrote it, or a newer one"
        );
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut writer = Writer { path, file, line: Vec::new() };
        let error = writer.write(&testing::failing_run()[0]).unwrap_err().to_string();
        assert!(error.contains("/dev/full") && error.contains("--out"), "{error}");
    }
}
