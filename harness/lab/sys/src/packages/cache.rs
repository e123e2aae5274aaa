//! The cache folder: one finished tree per release and purpose, put in place by one rename under a lock.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::apt::{Apt, Download, Failed};
use super::host::{self, Found};
use super::sources::Source;
use super::tree;
use super::version::{OLDEST_OPEN_VSWITCH, OLDEST_OVN, Version, Versions};
use crate::error::Error;
use crate::site::Tools;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Counts changes of what a tree holds: a tree of another revision is not used.
const REVISION: u32 = 1;
/// What apt, dpkg and the C library say of a full disk.
pub(super) const DISK_FULL: &str = "No space left on device";
const DAEMONS: [&str; 5] = ["ovn-central", "ovn-host", "ovn-common", "openvswitch-switch", "openvswitch-common"];
const IMAGE: [&str; 7] = ["busybox-static", "iproute2", "iputils-ping", "curl", "nftables", "ethtool", "tcpdump"];

/// What the lab runs on, ready to use.
#[derive(Clone, Debug)]
pub struct Packages {
    /// Programs: of the host or of the tree.
    pub tools: Tools,
    /// The root of pods' images: always a tree.
    pub image_root: PathBuf,
    /// Versions and where they come from.
    pub versions: Versions,
}

/// What takes time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Another program fetches into the same folder.
    WaitingForOther,
    /// The host's Open vSwitch is too old, so packages are used.
    HostTooOld {
        /// Open vSwitch as found.
        open_vswitch: Version,
        /// OVN as found.
        ovn: Version,
    },
    /// The archive's list of packages is being fetched.
    Listing {
        /// Such as `debian trixie`.
        origin: String,
    },
    /// A package is being fetched.
    Fetching {
        /// 1-based.
        number: usize,
        /// Packages in all.
        of: usize,
        /// Bytes in all.
        bytes: u64,
        /// Package.
        name: String,
    },
    /// A package is being unpacked.
    Unpacking {
        /// 1-based.
        number: usize,
        /// Packages in all.
        of: usize,
    },
}

/// `$XDG_CACHE_HOME/udn-conformance`, else `~/.cache/udn-conformance`.
#[must_use]
pub fn default_folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("udn-conformance")
}

/// Finds or fetches everything. Milliseconds once cached.
///
/// # Errors
/// Unknown distribution, no network, full disk, packages too old: each with its remedy.
pub fn ensure(cache: &Path, progress: &dyn Fn(Progress)) -> Result<Packages, Error> {
    let found = host::look(Path::new("/"));
    let reason = match &found {
        Found::TooOld { open_vswitch, ovn } => {
            progress(Progress::HostTooOld { open_vswitch: *open_vswitch, ovn: *ovn });
            format!(
                "the host's Open vSwitch {open_vswitch} and OVN {ovn} are older than {OLDEST_OPEN_VSWITCH} and {OLDEST_OVN}; "
            )
        }
        Found::Usable(_) | Found::Absent => String::new(),
    };
    let source = Source::of_host(Path::new("/"))?;
    // With the host's own daemons only the pods' image is needed.
    let (kind, wanted) = match found {
        Found::Usable(_) => ("image", IMAGE.to_vec()),
        _ => ("ovn", [DAEMONS.as_slice(), &IMAGE].concat()),
    };
    let recipe = Recipe { kind, wanted: &wanted, reason: &reason, facts: &versions_of_daemons };
    let folder = provide(cache, &source, &recipe, progress)?;
    let root = folder.join("root");
    match found {
        Found::Usable(versions) => Ok(Packages { tools: Tools { root: "/".into() }, image_root: root, versions }),
        _ => Ok(Packages { tools: Tools { root: root.clone() }, image_root: root, versions: read_facts(&folder)? }),
    }
}

/// What a tree is made of.
pub(super) struct Recipe<'a> {
    /// Part of the tree's name: what it is for.
    pub(super) kind: &'a str,
    /// Packages, besides the libraries that they need.
    pub(super) wanted: &'a [&'a str],
    /// Why the host's own are not taken, for errors.
    pub(super) reason: &'a str,
    /// What is noted beside the tree, from the names of the files and the origin; refuses what is too old.
    pub(super) facts: &'a dyn Fn(&[Download], String) -> Result<Value, Error>,
}

/// The folder of a finished tree, fetched now unless it is there.
pub(super) fn provide(
    cache: &Path,
    source: &Source,
    recipe: &Recipe<'_>,
    progress: &dyn Fn(Progress),
) -> Result<PathBuf, Error> {
    let kind = recipe.kind;
    let name = format!("{}-{}-{}-{kind}-{REVISION}", source.distribution, source.suite, std::env::consts::ARCH);
    let folder = cache.join("packages").join(&name);
    if !is_complete(&folder) {
        let _lock = lock(&cache.join("packages"), &name, progress)?;
        if !is_complete(&folder) {
            fetch(source, recipe, &folder, progress)?;
        }
    }
    Ok(folder)
}

fn is_complete(folder: &Path) -> bool {
    folder.join("versions.json").exists()
}

/// What was noted beside a finished tree.
pub(super) fn read_facts<T: DeserializeOwned>(folder: &Path) -> Result<T, Error> {
    let path = folder.join("versions.json");
    let text = std::fs::read(&path).map_err(Error::file("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| Error::file("read", &path)(error.into()))
}

/// Holds the lock until dropped; the kernel lets go of it when the program dies.
fn lock(folder: &Path, name: &str, progress: &dyn Fn(Progress)) -> Result<File, Error> {
    std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    let path = folder.join(format!(".{name}.lock"));
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    if file.try_lock().is_err() {
        progress(Progress::WaitingForOther);
        file.lock().map_err(Error::file("lock", &path))?;
    }
    Ok(file)
}

fn fetch(source: &Source, recipe: &Recipe<'_>, folder: &Path, progress: &dyn Fn(Progress)) -> Result<(), Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let partial = folder.with_file_name(format!(".{name}.partial"));
    // Left by a program that was killed: the lock is ours, so nobody uses it.
    remove(&partial)?;
    remove(folder)?;
    let result = fill(source, recipe, &partial, folder, progress);
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    result
}

fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", folder)(error)),
        _ => Ok(()),
    }
}

fn fill(
    source: &Source,
    recipe: &Recipe<'_>,
    partial: &Path,
    folder: &Path,
    progress: &dyn Fn(Progress),
) -> Result<(), Error> {
    let failed = |Failed(detail): Failed| {
        if detail.contains(DISK_FULL) {
            return Error::file("fetch packages into", partial)(std::io::ErrorKind::StorageFull.into());
        }
        Error::Fetch { reason: recipe.reason.to_owned(), detail, folder: folder.to_owned() }
    };
    let (debs, root) = (partial.join("debs"), partial.join("root"));
    for path in [&debs, &root] {
        std::fs::create_dir_all(path).map_err(Error::file("create", path))?;
    }
    let origin = format!("{} {}", source.distribution, source.suite);
    let apt = Apt::new(&partial.join("apt"), source)?;
    progress(Progress::Listing { origin: origin.clone() });
    apt.update().map_err(failed)?;
    let packages = apt.closure(recipe.wanted).map_err(failed)?;
    let downloads = apt.sizes(&packages).map_err(failed)?;
    let facts = (recipe.facts)(&downloads, origin)?;
    let (of, bytes) = (downloads.len(), downloads.iter().map(|download| download.size).sum());
    let mut number = 0;
    let each = |name: &str| {
        number += 1;
        progress(Progress::Fetching { number, of, bytes, name: name.to_owned() });
    };
    apt.download(&packages, &debs, each).map_err(failed)?;
    let mut number = 0;
    tree::unpack(&debs, &root, |_| {
        number += 1;
        progress(Progress::Unpacking { number, of });
    })?;
    for path in [&debs, &partial.join("apt")] {
        std::fs::remove_dir_all(path).map_err(Error::file("remove", path))?;
    }
    let path = partial.join("versions.json");
    let text = serde_json::to_vec(&facts).map_err(|error| Error::file("write", &path)(error.into()))?;
    std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    std::fs::rename(partial, folder).map_err(Error::file("put in place", folder))
}

/// The version of a package among those to be fetched.
pub(super) fn version_of(downloads: &[Download], package: &str) -> Option<Version> {
    let file = downloads.iter().find_map(|download| download.file.strip_prefix(&format!("{package}_")))?;
    Version::find(&file.replace("%3a", ":"))
}

/// None when the daemons are the host's.
fn versions_of(downloads: &[Download], origin: String) -> Option<Versions> {
    let version = |package| version_of(downloads, package);
    Some(Versions { open_vswitch: version("openvswitch-switch")?, ovn: version("ovn-central")?, origin })
}

fn versions_of_daemons(downloads: &[Download], origin: String) -> Result<Value, Error> {
    let versions = versions_of(downloads, origin);
    if let Some(versions) = &versions {
        refuse_old(versions)?;
    }
    Ok(serde_json::to_value(versions).unwrap_or_default())
}

fn refuse_old(versions: &Versions) -> Result<(), Error> {
    if versions.open_vswitch < OLDEST_OPEN_VSWITCH || versions.ovn < OLDEST_OVN {
        return Err(Error::TooOld {
            origin: versions.origin.clone(),
            open_vswitch: versions.open_vswitch.to_string(),
            ovn: versions.ovn.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn unreachable() -> Source {
        Source {
            distribution: "debian".into(),
            suite: "trixie".into(),
            // Nobody listens on port 1 of the loopback.
            uris: vec!["http://127.0.0.1:1/debian".into()],
            components: "main",
            signed_by: None,
        }
    }

    fn daemons(reason: &str) -> Recipe<'_> {
        Recipe { kind: "ovn", wanted: &["ovn-central"], reason, facts: &versions_of_daemons }
    }

    #[test]
    fn without_network_one_error_says_what_to_do_and_nothing_is_left() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("packages/key");
        // What a program that was killed in the middle leaves.
        std::fs::create_dir_all(cache.path().join("packages/.key.partial/root/usr")).unwrap();
        let reason = "the host's Open vSwitch 3.1.0 and OVN 23.03.1 are older than 3.3.0 and 24.03.0; ";
        let error = fetch(&unreachable(), &daemons(reason), &folder, &|_| {}).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("3.1.0") && message.contains("connect to the network"), "{message}");
        assert!(message.contains(folder.to_str().unwrap()), "{message}");
        assert_eq!(std::fs::read_dir(cache.path().join("packages")).unwrap().count(), 0);
    }

    #[test]
    fn a_package_list_that_is_not_signed_by_the_distribution_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        let archive = cache.path().join("archive/dists/trixie/main/binary-amd64");
        std::fs::create_dir_all(&archive).unwrap();
        std::fs::write(archive.join("Packages"), "Package: ovn-central\nVersion: 99.0.0-1\nArchitecture: amd64\n")
            .unwrap();
        std::fs::write(cache.path().join("archive/dists/trixie/Release"), "Suite: trixie\nComponents: main\n").unwrap();
        let source = Source { uris: vec![format!("file:{}", cache.path().join("archive").display())], ..unreachable() };
        let folder = cache.path().join("packages/key");
        let message = fetch(&source, &daemons(""), &folder, &|_| {}).unwrap_err().to_string();
        assert!(message.contains("not signed"), "{message}");
        assert!(!folder.exists());
    }

    #[test]
    fn two_programs_take_turns() {
        let cache = tempfile::tempdir().unwrap();
        let seen = Mutex::new(Vec::new());
        let first = lock(cache.path(), "key", &|event| seen.lock().unwrap().push(event)).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(cache.path(), "key", &|event| seen.lock().unwrap().push(event)).map(drop));
            while seen.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
        assert_eq!(*seen.lock().unwrap(), [Progress::WaitingForOther]);
    }

    #[test]
    fn versions_come_from_file_names() {
        let download = |file: &str| Download { file: file.into(), size: 1 };
        let downloads = [download("openvswitch-switch_3.1.0-2_amd64.deb"), download("ovn-central_23.03.1-1_amd64.deb")];
        let versions = versions_of(&downloads, "debian bookworm".into()).unwrap();
        let message = refuse_old(&versions).unwrap_err().to_string();
        assert!(message.contains("debian bookworm has Open vSwitch 3.1.0 and OVN 23.03.1"), "{message}");
        assert_eq!(versions_of(&downloads[..1], String::new()), None);
    }
}
