//! What the host has installed already.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::version::{OLDEST_OPEN_VSWITCH, OLDEST_OVN, Version, Versions};

/// Where distributions put the daemons; some are not in an ordinary user's `PATH`.
const FOLDERS: [&str; 5] = ["usr/sbin", "usr/bin", "usr/lib/openvswitch-switch", "usr/local/sbin", "usr/local/bin"];
/// Everything that the ground starts.
const NEEDED: [&str; 7] =
    ["ovsdb-server", "ovsdb-tool", "ovs-vswitchd", "ovn-northd", "ovn-controller", "ovs-vsctl", "ovn-nbctl"];

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// New enough, and complete.
    Usable(Versions),
    /// There, but older than the lab works with.
    TooOld {
        /// Open vSwitch as found.
        open_vswitch: Version,
        /// OVN as found.
        ovn: Version,
    },
    /// Not there, or not completely.
    Absent,
}

/// Looks for Open vSwitch and OVN under `root` (`/`).
#[must_use]
pub fn look(root: &Path) -> Found {
    let find = |program: &str| -> Option<PathBuf> {
        FOLDERS.iter().map(|folder| root.join(folder).join(program)).find(|path| path.exists())
    };
    if NEEDED.iter().any(|program| find(program).is_none()) {
        return Found::Absent;
    }
    let version = |program: &str| {
        let output = Command::new(find(program)?).arg("--version").output().ok()?;
        Version::find(&String::from_utf8_lossy(&output.stdout))
    };
    let (Some(open_vswitch), Some(ovn)) = (version("ovs-vswitchd"), version("ovn-northd")) else {
        return Found::Absent;
    };
    judge(open_vswitch, ovn)
}

fn judge(open_vswitch: Version, ovn: Version) -> Found {
    if open_vswitch < OLDEST_OPEN_VSWITCH || ovn < OLDEST_OVN {
        return Found::TooOld { open_vswitch, ovn };
    }
    Found::Usable(Versions { open_vswitch, ovn, origin: "host".into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake_host(open_vswitch: &str, ovn: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/bin");
        std::fs::create_dir_all(&folder).unwrap();
        for program in NEEDED {
            let says = if program == "ovn-northd" { ovn } else { open_vswitch };
            let path = folder.join(program);
            std::fs::write(&path, format!("#!/bin/sh\necho '{program} {says}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    #[test]
    fn new_enough_is_used() {
        let root = fake_host("3.3.0", "24.03.2");
        assert!(matches!(look(root.path()), Found::Usable(versions) if versions.ovn == Version(24, 3, 2)));
    }

    #[test]
    fn older_is_refused_and_named() {
        let root = fake_host("3.1.0", "23.03.1");
        assert_eq!(look(root.path()), Found::TooOld { open_vswitch: Version(3, 1, 0), ovn: Version(23, 3, 1) });
    }

    #[test]
    fn incomplete_is_absent() {
        let root = fake_host("3.3.0", "24.03.2");
        std::fs::remove_file(root.path().join("usr/bin/ovn-controller")).unwrap();
        assert_eq!(look(root.path()), Found::Absent);
    }
}
