//! Builds a container's root file system, inside its mount namespace.
//!
//! The new root becomes the root first and the lab's tree hangs below it until the end: so links inside the
//! container's tree can never lead a mount or a file out of it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;

use super::job::Step;

/// Where the lab's tree is while the root is built.
const OUTSIDE: &str = "/.outside";
/// The most that a container may write outside of its volumes.
const ROOT_SIZE: &str = "mode=0755,size=1g";
/// Beyond the container: read-only unless privileged, as container runtimes have them.
const PROTECTED: [&str; 6] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/kcore"];

/// Makes a root file system by `steps` and changes into it.
pub(super) fn build_root(mount_point: &Path, steps: &[Step], read_only: bool) -> io::Result<()> {
    let context = |what: &str, error: io::Error| io::Error::other(format!("{what}: {error}"));
    mount_new("tmpfs", mount_point, MsFlags::MS_NOSUID, Some(ROOT_SIZE)).map_err(|error| context("tmpfs", error))?;
    let outside = mount_point.join(OUTSIDE.trim_start_matches('/'));
    fs::create_dir(&outside)?;
    pivot_root(mount_point, &outside).map_err(|error| context("pivot_root", error.into()))?;
    std::env::set_current_dir("/")?;
    for step in steps {
        perform(step).map_err(|error| context(&format!("{step:?}"), error))?;
    }
    umount2(OUTSIDE, MntFlags::MNT_DETACH).map_err(|error| context("umount of the lab's tree", error.into()))?;
    fs::remove_dir(OUTSIDE)?;
    if read_only {
        make_read_only(Path::new("/"))?;
    }
    Ok(())
}

fn perform(step: &Step) -> io::Result<()> {
    match step {
        Step::Directory { path, mode } => {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
        }
        Step::Symlink { path, target } => match symlink(target, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        },
        Step::File { path, mode, content } => {
            make_parent(path)?;
            fs::write(path, content)?;
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
        }
        Step::Bind { source, path, read_only } => bind(&outside(source), path, *read_only),
        Step::Tmpfs { path, mode } => {
            fs::create_dir_all(path)?;
            mount_new("tmpfs", path, MsFlags::MS_NOSUID, Some(&format!("mode={mode:o}")))
        }
        Step::Proc { writable } => mount_proc(*writable),
        Step::Sys { writable } => mount_sys(*writable),
        Step::Terminals => {
            fs::create_dir_all("/dev/pts")?;
            let options = "newinstance,ptmxmode=0666,mode=0620";
            mount_new("devpts", Path::new("/dev/pts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some(options))
        }
    }
}

fn outside(source: &Path) -> PathBuf {
    Path::new(OUTSIDE).join(source.strip_prefix("/").unwrap_or(source))
}

fn mount_new(kind: &str, path: &Path, flags: MsFlags, options: Option<&str>) -> io::Result<()> {
    Ok(mount(Some(kind), path, Some(kind), flags, options)?)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn bind(source: &Path, path: &Path, read_only: bool) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        fs::create_dir_all(path)?;
    } else if !path.exists() {
        make_parent(path)?;
        fs::File::create(path)?;
    }
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    if read_only { make_read_only(path) } else { Ok(()) }
}

/// A bind mount becomes read-only by a second call, which has to repeat the flags it has: inside a user namespace
/// the kernel refuses to lose any of them.
fn make_read_only(path: &Path) -> io::Result<()> {
    let has = statvfs(path)?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    for (set, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if has.contains(set) {
            flags |= flag;
        }
    }
    Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
}

fn mount_proc(writable: bool) -> io::Result<()> {
    let path = Path::new("/proc");
    fs::create_dir_all(path)?;
    mount_new("proc", path, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None)?;
    if !writable {
        for protected in PROTECTED.map(Path::new).into_iter().filter(|path| path.exists()) {
            bind(protected, protected, true)?;
        }
    }
    Ok(())
}

fn mount_sys(writable: bool) -> io::Result<()> {
    let path = Path::new("/sys");
    fs::create_dir_all(path)?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if !writable {
        flags |= MsFlags::MS_RDONLY;
    }
    match mount_new("sysfs", path, flags, None) {
        // A user namespace may only have a /sys of its own where it sees all of the lab's; else it gets that one.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bind(&outside(path), path, !writable),
        result => result,
    }
}
