//! Root file systems from read-only trees of the lab: each directory of a tree is bound, nothing is copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use udn_lab_sys::site::{NodeSite, Site};

use super::{Contents, Image};
use crate::container::job::Step;

/// Top-level directories that a container takes from a tree; everything else is its own.
const SHARED: [&str; 8] = ["bin", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr"];
/// What of a tree's `/etc` a container takes; the rest is written for it.
const SHARED_ETC: [&str; 11] = [
    "alternatives",
    "ca-certificates",
    "gai.conf",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "protocols",
    "services",
    "ssl",
];
/// Where a container sees the tree whose programs are reached by links.
const TREE: &str = "/.image";
/// Where a container sees the program that stands in for missing commands.
const BUSYBOX: &str = "/.busybox";
/// Devices of the lab that every container has.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// The trees and files of all images, prepared once per node.
pub(crate) struct Images {
    base: Vec<Step>,
    ovn: Vec<Step>,
    agnhost: PathBuf,
    agent: PathBuf,
    dns: PathBuf,
}

impl Images {
    /// Writes what images need beside the site's trees below `directory`. Blocks.
    pub(crate) fn prepare(site: &Site, node: &NodeSite, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let agnhost = write_program(directory, "agnhost", udn_binaries::AGNHOST)?;
        let agent = write_program(directory, "agent", udn_binaries::AGENT)?;
        let dns = write_program(directory, "coredns", udn_binaries::DNS)?;
        let busybox = Busybox::find(&site.image_root);
        let base = tree(&site.image_root, busybox.as_ref(), &directory.join("base"))?;
        let mut ovn = tree(&site.tools.root, busybox.as_ref(), &directory.join("ovn"))?;
        ovn.push(bind(&node.ovs_run, "/run/openvswitch", false));
        ovn.push(bind(&node.ovn_run, "/run/ovn", false));
        Ok(Self { base, ovn, agnhost, agent, dns })
    }

    /// The steps that make an image's file system; `private_directories` come before them.
    pub(crate) fn steps(&self, image: &Image) -> Vec<Step> {
        let (tree, programs): (_, &[(&Path, &str)]) = match image.contents {
            Contents::Base => (&self.base, &[]),
            Contents::Agnhost => (&self.base, &[(&self.agnhost, "/agnhost"), (&self.agnhost, "/pause")]),
            Contents::Dns => (&self.base, &[(&self.dns, "/coredns")]),
            Contents::Agent => (&self.base, &[(&self.agent, "/agent")]),
            Contents::Ovn => (&self.ovn, &[(&self.agnhost, "/pause")]),
        };
        let programs = programs.iter().map(|(source, path)| bind(source, path, true));
        tree.iter().cloned().chain(programs).collect()
    }
}

/// The writable directories of every container.
pub(crate) fn private_directories() -> Vec<Step> {
    let directory = |path: &str, mode| Step::Directory { path: path.into(), mode };
    let mut steps: Vec<Step> = [("/tmp", 0o1777), ("/root", 0o700), ("/var/tmp", 0o1777), ("/run/lock", 0o1777)]
        .into_iter()
        .map(|(path, mode)| directory(path, mode))
        .collect();
    steps.extend(
        ["/etc", "/home", "/mnt", "/srv", "/var", "/var/cache", "/var/lib", "/var/log", "/run"]
            .map(|path| directory(path, 0o755)),
    );
    steps.push(Step::Symlink { path: "/var/run".into(), target: "/run".into() });
    steps.push(Step::Symlink { path: "/var/lock".into(), target: "/run/lock".into() });
    steps
}

/// `/dev`. The nodes are the lab's, bound: making nodes needs rights that a user namespace does not give.
pub(crate) fn devices(privileged: bool) -> Vec<Step> {
    let mut steps = vec![Step::Tmpfs { path: "/dev".into(), mode: 0o755 }];
    let tunnel = privileged.then_some("net/tun");
    for name in DEVICES.into_iter().chain(tunnel) {
        let node = Path::new("/dev").join(name);
        if node.exists() {
            steps.push(Step::Bind { source: node.clone(), path: node, read_only: false });
        }
    }
    steps.push(Step::Terminals);
    steps.push(Step::Tmpfs { path: "/dev/shm".into(), mode: 0o1777 });
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
    ] {
        steps.push(Step::Symlink { path: path.into(), target: target.into() });
    }
    steps
}

fn bind(source: &Path, path: &str, read_only: bool) -> Step {
    Step::Bind { source: source.to_owned(), path: path.into(), read_only }
}

fn write_program(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// One program that is many commands.
struct Busybox {
    path: PathBuf,
    commands: BTreeSet<String>,
}

impl Busybox {
    fn find(root: &Path) -> Option<Self> {
        let path =
            ["usr/bin/busybox", "bin/busybox"].map(|path| root.join(path)).into_iter().find(|path| path.exists())?;
        let path = path.canonicalize().ok()?;
        let listed = Command::new(&path).arg("--list").env_clear().output().ok()?;
        let commands = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
        Some(Self { path, commands })
    }
}

/// The steps that show `root` in a container, with busybox for the commands that `root` lacks.
fn tree(root: &Path, busybox: Option<&Busybox>, links: &Path) -> io::Result<Vec<Step>> {
    let root = root.canonicalize()?;
    let mut steps = Vec::new();
    // The host's own tree has its commands, and shall not be shown as a whole.
    let busybox = busybox.filter(|_| root != Path::new("/"));
    let linked = match busybox {
        Some(busybox) => link_commands(&root, busybox, links)?,
        None => false,
    };
    if let Some(busybox) = busybox.filter(|_| linked) {
        steps.push(bind(&root, TREE, true));
        steps.push(bind(&busybox.path, BUSYBOX, true));
        steps.push(Step::Directory { path: "/usr".into(), mode: 0o755 });
        share(&root, Path::new("usr"), &["bin", "sbin"], &mut steps)?;
        for name in ["bin", "sbin"] {
            steps.push(bind(&links.join(name), &format!("/usr/{name}"), true));
            steps.push(Step::Symlink { path: Path::new("/").join(name), target: format!("usr/{name}").into() });
        }
    }
    for name in SHARED {
        if linked && matches!(name, "usr" | "bin" | "sbin") {
            continue;
        }
        if root.join(name).symlink_metadata().is_ok() {
            share_entry(&root, &Path::new("/").join(name), &mut steps)?;
        } else if name != "usr" && root.join("usr").join(name).is_dir() {
            // A tree of unpacked packages lacks the links that a merged system has.
            steps.push(Step::Symlink { path: Path::new("/").join(name), target: format!("usr/{name}").into() });
        }
    }
    for name in SHARED_ETC {
        if root.join("etc").join(name).symlink_metadata().is_ok() {
            share_entry(&root, &Path::new("/etc").join(name), &mut steps)?;
        }
    }
    Ok(steps)
}

/// Shares the entries of one directory of the tree, but for `except`.
fn share(root: &Path, directory: &Path, except: &[&str], steps: &mut Vec<Step>) -> io::Result<()> {
    for entry in sorted(&root.join(directory))? {
        if !except.contains(&entry.as_str()) {
            share_entry(root, &Path::new("/").join(directory).join(entry), steps)?;
        }
    }
    Ok(())
}

fn share_entry(root: &Path, path: &Path, steps: &mut Vec<Step>) -> io::Result<()> {
    let source = root.join(path.strip_prefix("/").unwrap_or(path));
    if source.is_symlink() {
        steps.push(Step::Symlink { path: path.to_owned(), target: fs::read_link(&source)? });
    } else {
        steps.push(Step::Bind { source, path: path.to_owned(), read_only: true });
    }
    Ok(())
}

fn sorted(directory: &Path) -> io::Result<Vec<String>> {
    let names: io::Result<BTreeSet<String>> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    Ok(names?.into_iter().collect())
}

/// Fills `links` with directories `bin` and `sbin` of links, where the tree lacks commands that busybox has; `false`
/// where it lacks none.
fn link_commands(root: &Path, busybox: &Busybox, links: &Path) -> io::Result<bool> {
    let mut commands: BTreeMap<&str, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (kind, directory) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("bin", "bin"), ("sbin", "sbin")] {
        // The links of a merged system would only list the same again.
        if root.join(directory).is_symlink() || !root.join(directory).is_dir() {
            continue;
        }
        for name in sorted(&root.join(directory))? {
            let target = Path::new(TREE).join(directory).join(&name);
            commands.entry(kind).or_default().entry(name).or_insert(target);
        }
    }
    let known: BTreeSet<String> = commands.values().flat_map(|commands| commands.keys().cloned()).collect();
    let missing: Vec<&String> = busybox.commands.difference(&known).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    for name in missing {
        commands.entry("bin").or_default().insert(name.clone(), BUSYBOX.into());
    }
    for kind in ["bin", "sbin"] {
        let directory = links.join(kind);
        fs::create_dir_all(&directory)?;
        for (name, target) in commands.remove(kind).unwrap_or_default() {
            match symlink(target, directory.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busybox(root: &Path) -> Busybox {
        Busybox { path: root.join("usr/bin/busybox"), commands: ["sh", "ls", "ip"].map(str::to_owned).into() }
    }

    fn unpacked(directory: &Path) {
        for path in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc/iproute2"] {
            fs::create_dir_all(directory.join(path)).unwrap();
        }
        for path in ["usr/bin/busybox", "usr/bin/ip", "usr/sbin/tc"] {
            fs::write(directory.join(path), "").unwrap();
        }
    }

    #[test]
    fn commands_that_a_tree_lacks_come_from_busybox_and_its_own_are_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("root");
        unpacked(&root);
        let links = temporary.path().join("links");
        let steps = tree(&root, Some(&busybox(&root)), &links).unwrap();
        assert_eq!(fs::read_link(links.join("bin/sh")).unwrap(), Path::new(BUSYBOX));
        assert_eq!(fs::read_link(links.join("bin/ip")).unwrap(), Path::new("/.image/usr/bin/ip"));
        assert_eq!(fs::read_link(links.join("sbin/tc")).unwrap(), Path::new("/.image/usr/sbin/tc"));
        assert!(steps.contains(&Step::Symlink { path: "/bin".into(), target: "usr/bin".into() }));
        assert!(steps.contains(&Step::Symlink { path: "/lib64".into(), target: "usr/lib64".into() }), "{steps:?}");
        assert!(steps.contains(&bind(&root.join("etc/iproute2"), "/etc/iproute2", true)));
    }

    #[test]
    fn a_tree_that_lacks_nothing_is_bound_as_it_is() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("root");
        unpacked(&root);
        for name in ["sh", "ls"] {
            fs::write(root.join("usr/bin").join(name), "").unwrap();
        }
        let steps = tree(&root, Some(&busybox(&root)), &temporary.path().join("links")).unwrap();
        assert!(steps.contains(&bind(&root.join("usr"), "/usr", true)), "{steps:?}");
        assert!(!temporary.path().join("links").exists());
    }
}
