//! Packages unpacked into one tree that serves as root of pods' images and, by its own loader, for daemons.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cache::DISK_FULL;
use super::elf;
use crate::error::Error;
use crate::site::Tools;

/// Nobody reads these in a pod. (Character set converters go too: they load each other by a path of their own.)
const UNUSED: [&str; 6] = [
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "lib/systemd",
];

/// Unpacks every `.deb` of `debs` into `root` and makes it a root file system; `each` is called per package.
///
/// # Errors
/// When dpkg fails, the disk is full, or a library is missing.
pub fn unpack(debs: &Path, root: &Path, mut each: impl FnMut(&str)) -> Result<(), Error> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(debs)
        .map_err(Error::file("read", debs))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    files.sort();
    for file in &files {
        each(&file.file_name().unwrap_or_default().to_string_lossy());
        let output = Command::new("dpkg").arg("-x").arg(file).arg(root).stdin(Stdio::null()).output();
        let output = output.map_err(Error::file("run dpkg -x on", file))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let error =
                if message.contains(DISK_FULL) { io::ErrorKind::StorageFull.into() } else { io::Error::other(message) };
            return Err(Error::file("unpack", file)(error));
        }
    }
    complete(root).map_err(Error::file("complete", root))?;
    check(root)
}

/// # Errors
/// When a program of the tree needs a library that is not in it.
pub fn check(root: &Path) -> Result<(), Error> {
    let libraries = Tools { root: root.to_owned() }.libraries();
    let missing = elf::missing(root, &libraries).map_err(Error::file("read", root))?;
    match missing.into_iter().next() {
        Some((library, by)) => Err(Error::Incomplete { folder: root.to_owned(), library, by }),
        None => Ok(()),
    }
}

/// What maintainer scripts and the base system would have added: merged `/usr`, mount points, busybox' applets.
fn complete(root: &Path) -> io::Result<()> {
    for name in UNUSED {
        let _ = std::fs::remove_dir_all(root.join(name));
    }
    let _ = std::fs::remove_dir_all(Tools { root: root.to_owned() }.libraries().join("gconv"));
    for name in ["bin", "sbin", "lib", "lib64"] {
        let (old, merged) = (root.join(name), root.join("usr").join(name));
        std::fs::create_dir_all(&merged)?;
        if old.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            merge(&old, &merged)?;
            std::fs::remove_dir_all(&old)?;
        }
        if old.symlink_metadata().is_err() {
            symlink(format!("usr/{name}"), &old)?;
        }
    }
    for name in [
        "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var/lib", "var/log", "var/tmp",
    ] {
        std::fs::create_dir_all(root.join(name))?;
    }
    for name in ["tmp", "var/tmp"] {
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o1777))?;
    }
    let run = root.join("var/run");
    if run.symlink_metadata().is_ok_and(|data| data.is_dir()) {
        std::fs::remove_dir_all(&run)?;
    }
    if run.symlink_metadata().is_err() {
        symlink("/run", run)?;
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    std::fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")?;
    // Mount points for what a node agent writes per pod.
    for name in ["hosts", "hostname", "resolv.conf"] {
        std::fs::File::create(root.join("etc").join(name))?;
    }
    applets(root)
}

/// Moves what is below `from` into `into`, folder by folder.
fn merge(from: &Path, into: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = into.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            merge(&entry.path(), &target)?;
        } else {
            std::fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A link for each applet of busybox whose name no package uses.
fn applets(root: &Path) -> io::Result<()> {
    let busybox = root.join("usr/bin/busybox");
    if !busybox.exists() {
        return Ok(());
    }
    let output = Command::new(&busybox).arg("--list").stdin(Stdio::null()).output()?;
    for applet in String::from_utf8_lossy(&output.stdout).lines() {
        let taken =
            ["usr/bin", "usr/sbin"].iter().any(|folder| root.join(folder).join(applet).symlink_metadata().is_ok());
        if !taken && !applet.contains('/') {
            symlink("busybox", root.join("usr/bin").join(applet))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_usr_is_merged() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("lib/multi/deep")).unwrap();
        std::fs::create_dir_all(root.join("usr/lib/multi")).unwrap();
        std::fs::write(root.join("lib/multi/deep/a"), "a").unwrap();
        std::fs::write(root.join("usr/lib/multi/b"), "b").unwrap();
        complete(root).unwrap();
        assert_eq!(std::fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
        assert_eq!(std::fs::read_to_string(root.join("usr/lib/multi/deep/a")).unwrap(), "a");
        assert_eq!(std::fs::read_to_string(root.join("lib/multi/b")).unwrap(), "b");
        assert_eq!(std::fs::read_link(root.join("var/run")).unwrap(), Path::new("/run"));
        complete(root).unwrap();
    }

    #[test]
    fn a_missing_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::create_dir_all(Tools { root: root.to_owned() }.libraries()).unwrap();
        std::fs::copy("/proc/self/exe", root.join("usr/bin/program")).unwrap();
        let message = check(root).unwrap_err().to_string();
        assert!(message.contains(".so") && message.contains("usr/bin/program"), "{message}");
    }
}
