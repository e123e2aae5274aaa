//! What went wrong with the ground since it was up: such a run says nothing about the network.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::daemon::Daemon;
use crate::error::Error;
use crate::packages::version::Version;

/// Lines of a log that mean lost packets or a broken daemon, and why.
const SIGNS: [(&str, &str); 3] = [
    ("Max recirculation depth exceeded", "dropped packets: a path through the switch is longer than it can follow"),
    ("|EMER|", "reported an emergency"),
    ("assertion", "failed an assertion"),
];

/// What OVN's daemons say of themselves before anything else.
const VERSION: &str = "OVN internal version is";

/// A way to end that some versions of a daemon are known for, and that takes nothing from the network which is not there again
/// once the daemon is.
#[derive(Debug)]
struct Defect {
    daemon: &'static str,
    /// What its log says then.
    sign: &'static str,
    why: &'static str,
    /// The first release of each line without it; the last one's successors do not have it either.
    mended: [Version; 3],
}

const DEFECTS: [Defect; 1] = [Defect {
    daemon: "ovn-controller",
    sign: "assertion row->new_datum != NULL failed in ovsdb_idl_txn_write__",
    why: "it took a port that had just been deleted for one that is there, as OVN before 24.03.8, 25.03.3 and 25.09.2 does now \
          and then (Open vSwitch's commit 785a89b48db6)",
    mended: [Version(24, 3, 8), Version(25, 3, 3), Version(25, 9, 2)],
}];

impl Defect {
    fn is_in(&self, version: Version) -> bool {
        let line = self.mended.iter().find(|mended| (mended.0, mended.1) == (version.0, version.1));
        line.or(self.mended.last()).is_some_and(|mended| version < *mended)
    }
}

/// What a new line of a log says.
#[derive(Debug)]
enum Sign {
    /// The line, and what it means.
    Problem(String, &'static str),
    Known(&'static Defect),
}

/// Reads logs from where it stopped the last time.
#[derive(Debug, Default)]
pub(super) struct Health {
    read: HashMap<PathBuf, u64>,
    /// What the daemon that writes a log is.
    versions: HashMap<PathBuf, Version>,
    found: Vec<Error>,
    /// Known ways in which daemons ended.
    known: Vec<String>,
    /// The daemons that did: their process ids.
    excused: HashSet<u32>,
    /// How often daemons were started again: name and place.
    restarts: HashMap<(String, String), usize>,
}

impl Health {
    /// Problems found by this and earlier looks, oldest first, as text.
    pub(super) fn look(&mut self, daemons: &mut [Daemon]) -> Vec<String> {
        for daemon in daemons {
            // What has ended has written its last line.
            let ended = daemon.check().err();
            for sign in self.new_signs(&daemon.name, &daemon.log).unwrap_or_default() {
                match sign {
                    Sign::Known(defect) => {
                        if self.excused.insert(daemon.pid()) {
                            self.known.push(format!("{} of {} ended: {}", daemon.name, daemon.place, defect.why));
                        }
                    }
                    Sign::Problem(line, why) => self.add(Error::Daemon {
                        daemon: daemon.name.clone(),
                        place: daemon.place.clone(),
                        what: why.to_owned(),
                        log: line,
                    }),
                }
            }
            if let Some(error) = ended
                && !self.excused.contains(&daemon.pid())
            {
                self.add(error);
            }
        }
        self.found.iter().map(ToString::to_string).collect()
    }

    /// How daemons ended that are known to end so now and then.
    pub(super) fn known(&self) -> Vec<String> {
        self.known.clone()
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

    fn new_signs(&mut self, daemon: &str, log: &Path) -> std::io::Result<Vec<Sign>> {
        let from = self.read.entry(log.to_owned()).or_default();
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
            if let Some((_, told)) = text.split_once(VERSION) {
                let version = Version::find(told.trim_start_matches([' ', ':', '[']));
                self.versions.extend(version.map(|version| (log.to_owned(), version)));
            }
            let version = self.versions.get(log).copied();
            let known = |defect: &&Defect| {
                defect.daemon == daemon && text.contains(defect.sign) && version.is_some_and(|it| defect.is_in(it))
            };
            if let Some(defect) = DEFECTS.iter().find(known) {
                signs.push(Sign::Known(defect));
            } else if let Some((_, why)) = SIGNS.iter().find(|(sign, _)| text.contains(sign)) {
                signs.push(Sign::Problem(text.trim().to_owned(), why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rstest::rstest;

    use super::*;

    #[test]
    fn reads_each_line_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut file = File::create(&log).unwrap();
        let mut health = Health::default();
        write!(file, "x|INFO|fine\nx|WARN|Max recirc").unwrap();
        assert!(health.new_signs("ovs-vswitchd", &log).unwrap().is_empty());
        writeln!(file, "ulation depth exceeded").unwrap();
        let signs = health.new_signs("ovs-vswitchd", &log).unwrap();
        assert!(matches!(&signs[..], [Sign::Problem(line, _)] if line.ends_with("depth exceeded")), "{signs:?}");
        assert!(health.new_signs("ovs-vswitchd", &log).unwrap().is_empty());
    }

    #[rstest]
    #[case::in_this_version("ovn-controller", "25.03.0-20.41.0-77.6", true)]
    #[case::in_a_line_that_was_never_mended("ovn-controller", "24.09.3-20.37.0-77.5", true)]
    #[case::mended_in_its_line("ovn-controller", "24.03.8-20.33.0-76.8", false)]
    #[case::later_than_all("ovn-controller", "26.03.0-21.1.0-80.1", false)]
    #[case::another_daemon("ovn-northd", "25.03.0-20.41.0-77.6", false)]
    fn a_known_defect_is_no_problem(#[case] daemon: &str, #[case] version: &str, #[case] known: bool) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text = format!(
            "00012|main|INFO|OVN internal version is : [{version}]\n\
             01424|util|EMER|lib/ovsdb-idl.c:3598: assertion row->new_datum != NULL failed in ovsdb_idl_txn_write__()\n"
        );
        std::fs::write(&log, text).unwrap();
        let signs = Health::default().new_signs(daemon, &log).unwrap();
        assert_eq!(signs.len(), 1);
        assert_eq!(matches!(signs[0], Sign::Known(_)), known, "{signs:?}");
    }

    #[test]
    fn another_assertion_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text = "main|INFO|OVN internal version is : [25.03.0-20.41.0-77.6]\nutil|EMER|assertion x failed in y()\n";
        std::fs::write(&log, text).unwrap();
        let signs = Health::default().new_signs("ovn-controller", &log).unwrap();
        assert!(matches!(&signs[..], [Sign::Problem(..)]), "{signs:?}");
    }
}
