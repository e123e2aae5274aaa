//! What is kept about a lab on disk: one folder per lab below the cache folder, with its kubeconfig and log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use udn_lab_sys::error::Error as Ground;
use udn_lab_sys::packages::Versions;

use crate::error::Error;

/// What is needed to find a lab again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Process id of the keeper.
    pub(super) keeper: u32,
    /// When the keeper started, clock ticks since boot: tells it from a later process of the same number.
    pub(super) started: u64,
    /// Open vSwitch and OVN.
    pub(super) versions: Versions,
    /// The API server that it joined, by its URL.
    #[serde(default)]
    pub(super) joined: Option<String>,
}

/// A lab's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of the lab `name`.
    pub(super) fn of(cache: &Path, name: &str) -> Result<Self, Error> {
        let sane = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 60 || !name.chars().all(sane) {
            return Err(Error::Name { name: name.into() });
        }
        Ok(Self { path: cache.join("labs").join(name) })
    }

    /// Names of all labs that have a folder.
    pub(super) fn names(cache: &Path) -> Vec<String> {
        let entries =
            fs::read_dir(cache.join("labs")).map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>());
        let mut names: Vec<String> = entries
            .unwrap_or_default()
            .into_iter()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the lab's courier listens.
    pub(super) fn courier(&self) -> PathBuf {
        self.socket("courier.sock")
    }

    /// Where its relay to an API server listens.
    pub(super) fn relay(&self) -> PathBuf {
        self.socket("relay.sock")
    }

    fn socket(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::path::absolute(&path).unwrap_or(path)
    }

    /// Makes the folder, for this user only.
    pub(super) fn create(&self) -> Result<(), Error> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.path).map_err(Ground::file("create", &self.path))?;
        Ok(())
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Ground::file("remove", &self.path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Held while a lab of this name is being started or ended.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let path = self.path.with_extension("lock");
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(Ground::file("create", folder))?;
        loop {
            let file = File::create(&path).map_err(Ground::file("create", &path))?;
            file.lock().map_err(Ground::file("lock", &path))?;
            // Who had it before may have removed the file: then it locks nobody out.
            if is_at(&file, &path) {
                return Ok(Lock { file, path });
            }
        }
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(record).map_err(Error::inside("describe it"))?;
        self.write("lab.json", &text)
    }

    /// Writes a file that only this user may read, in one step.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (path, partial) = (self.path.join(name), self.path.join(format!(".{name}.partial")));
        let write = || {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(bytes)?;
            fs::rename(&partial, &path)
        };
        write().map_err(Ground::file("write", &path))?;
        Ok(())
    }

    /// The record, if the lab that it is about still runs.
    pub(super) fn running(&self) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.path.join("lab.json")).ok()?).ok()?;
        (start_time(record.keeper) == Some(record.started)).then_some(record)
    }
}

/// A locked file, which goes with the lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever waits for it finds that it is gone, and makes another.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let number = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    number(file.metadata()).is_some_and(|own| Some(own) == number(fs::metadata(path)))
}

/// When a process started, clock ticks since boot; none if there is none, or it has ended and waits to be reaped.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use udn_lab_sys::packages::Version;

    use super::*;

    #[test]
    fn a_record_counts_while_its_process_lives() {
        let cache = tempfile::tempdir().unwrap();
        let folder = Folder::of(cache.path(), "a-lab").unwrap();
        folder.create().unwrap();
        let versions = Versions { open_vswitch: Version(3, 5, 0), ovn: Version(25, 3, 0), origin: "host".into() };
        let own = std::process::id();
        let mut record = Record { keeper: own, started: start_time(own).unwrap(), versions, joined: None };
        folder.write_record(&record).unwrap();
        assert_eq!(folder.running(), Some(record.clone()));
        record.started += 1;
        folder.write_record(&record).unwrap();
        assert_eq!(folder.running(), None, "another process has its number now");
        assert_eq!(Folder::names(cache.path()), ["a-lab"]);
    }

    #[test]
    fn who_waited_for_a_lock_keeps_others_out_and_nothing_stays() {
        let cache = tempfile::tempdir().unwrap();
        let folder = Folder::of(cache.path(), "a").unwrap();
        let first = folder.lock().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| folder.lock().unwrap());
            // Long enough that the other has the first one's file open.
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
            let second = waiting.join().unwrap();
            let third = File::open(&second.path).unwrap();
            assert!(matches!(third.try_lock(), Err(fs::TryLockError::WouldBlock)));
        });
        assert_eq!(fs::read_dir(cache.path().join("labs")).unwrap().count(), 0);
    }

    #[test]
    fn secrets_are_for_their_owner() {
        let cache = tempfile::tempdir().unwrap();
        let folder = Folder::of(cache.path(), "a").unwrap();
        folder.create().unwrap();
        folder.write("kubeconfig", b"token").unwrap();
        assert_eq!(fs::metadata(folder.kubeconfig()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_name_stays_within_its_folder() {
        for name in ["", "..", "a/b", "a b"] {
            assert!(matches!(Folder::of(Path::new("/x"), name), Err(Error::Name { .. })), "{name:?}");
        }
    }
}
