//! What went wrong with the ground since it was up: such a run says nothing about the network.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use super::daemon::Daemon;
use crate::error::Error;

/// Lines of a log that mean lost packets or a broken daemon, and why.
const SIGNS: [(&str, &str); 3] = [
    ("Max recirculation depth exceeded", "dropped packets: a path through the switch is longer than it can follow"),
    ("|EMER|", "reported an emergency"),
    ("assertion", "failed an assertion"),
];

/// Reads logs from where it stopped the last time.
#[derive(Debug, Default)]
pub(super) struct Health {
    read: HashMap<PathBuf, u64>,
    found: Vec<Error>,
    /// How often daemons were started again: name and place.
    restarts: HashMap<(String, String), usize>,
}

impl Health {
    /// Problems found by this and earlier looks, oldest first, as text.
    pub(super) fn look(&mut self, daemons: &mut [Daemon]) -> Vec<String> {
        for daemon in daemons {
            if let Err(error) = daemon.check() {
                self.add(error);
            }
            for (line, why) in self.new_signs(&daemon.log).unwrap_or_default() {
                self.add(Error::Daemon {
                    daemon: daemon.name.clone(),
                    place: daemon.place.clone(),
                    what: why.to_owned(),
                    log: line,
                });
            }
        }
        self.found.iter().map(ToString::to_string).collect()
    }

    /// How often a daemon was started again.
    pub(super) fn restarts(&self, name: &str, place: &str) -> usize {
        self.restarts.get(&(name.to_owned(), place.to_owned())).copied().unwrap_or_default()
    }

    /// Counts one more start of a daemon.
    pub(super) fn restarted(&mut self, name: &str, place: &str) {
        *self.restarts.entry((name.to_owned(), place.to_owned())).or_default() += 1;
    }

    /// Whether there is anything to tell of a daemon.
    pub(super) fn has_problem_of(&self, name: &str, at: &str) -> bool {
        let of = |error: &Error| matches!(error, Error::Daemon { daemon, place, .. } if daemon == name && place == at);
        self.found.iter().any(of)
    }

    fn add(&mut self, error: Error) {
        let same = |known: &Error| match (known, &error) {
            (Error::Daemon { daemon, place, what, .. }, Error::Daemon { daemon: d, place: p, what: w, .. }) => {
                daemon == d && place == p && what == w
            }
            _ => false,
        };
        if !self.found.iter().any(same) {
            self.found.push(error);
        }
    }

    fn new_signs(&mut self, log: &PathBuf) -> std::io::Result<Vec<(String, &'static str)>> {
        let from = self.read.entry(log.clone()).or_default();
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(*from))?;
        let mut reader = BufReader::new(file);
        let mut signs = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line)?;
            // A line without its end is read again when it has one.
            if count == 0 || line.last() != Some(&b'\n') {
                return Ok(signs);
            }
            *from += count as u64;
            let text = String::from_utf8_lossy(&line);
            if let Some((_, why)) = SIGNS.iter().find(|(sign, _)| text.contains(sign)) {
                signs.push((text.trim().to_owned(), *why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn reads_each_line_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut file = File::create(&log).unwrap();
        let mut health = Health::default();
        write!(file, "x|INFO|fine\nx|WARN|Max recirc").unwrap();
        assert!(health.new_signs(&log).unwrap().is_empty());
        writeln!(file, "ulation depth exceeded").unwrap();
        let signs = health.new_signs(&log).unwrap();
        assert_eq!(signs.len(), 1);
        assert!(signs[0].0.ends_with("depth exceeded"));
        assert!(health.new_signs(&log).unwrap().is_empty());
    }
}
