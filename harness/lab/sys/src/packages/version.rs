//! Versions of Open vSwitch and OVN, and the oldest that works.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Older ones drop packets: recirculation limit 6 instead of 8, a conntrack assertion that ends the daemon, lost NAT
/// connections (measured on 3.1.0).
pub const OLDEST_OPEN_VSWITCH: Version = Version(3, 3, 0);
/// The first OVN release made for that Open vSwitch.
pub const OLDEST_OVN: Version = Version(24, 3, 0);

/// The first QEMU that live migration with shared memory was measured with.
pub const OLDEST_QEMU: Version = Version(7, 2, 0);
/// The first QEMU whose guests survive a live migration that copies their memory while they are emulated: older ones
/// lost 2 of 30.
pub const COPYING_QEMU: Version = Version(9, 0, 0);

/// `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version(pub u32, pub u32, pub u32);

/// What the lab runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Open vSwitch.
    pub open_vswitch: Version,
    /// OVN.
    pub ovn: Version,
    /// `host`, or the distribution release that the packages were fetched from, such as `debian trixie`.
    pub origin: String,
}

/// Text without a version in it.
#[derive(Debug, thiserror::Error)]
#[error("no version like 3.3.0 in {0:?}")]
pub struct NoVersion(String);

impl Version {
    /// The first version in free text: what `--version` prints, or a package's `1:3.5.0-1+b1`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || matches!(c, ':' | '_' | '-' | '+' | '~')).find_map(Self::exact)
    }

    fn exact(word: &str) -> Option<Self> {
        let mut parts = word.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        Some(Self(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // OVN's first two numbers are a year and a month, which it writes with two digits.
        let width = if self.0 >= 20 { 2 } else { 1 };
        write!(f, "{}.{:0width$}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        Self::find(text).ok_or_else(|| NoVersion(text.to_owned()))
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = NoVersion;

    fn try_from(text: String) -> Result<Self, NoVersion> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_versions_in_what_programs_and_packages_say() {
        assert_eq!(Version::find("ovs-vswitchd (Open vSwitch) 3.1.0\nDPDK 22.11.7"), Some(Version(3, 1, 0)));
        assert_eq!(Version::find("ovn-northd 24.03.2\nOpen vSwitch Library 3.3.0"), Some(Version(24, 3, 2)));
        assert_eq!(Version::find("openvswitch-switch_3.5.0-1+b1_amd64.deb"), Some(Version(3, 5, 0)));
        assert_eq!(Version::find("1:25.03.0~rc1-1"), Some(Version(25, 3, 0)));
        assert_eq!(Version::find("no version here"), None);
    }

    #[test]
    fn versions_are_written_as_their_projects_write_them() {
        assert_eq!(Version(3, 5, 0).to_string(), "3.5.0");
        assert_eq!(OLDEST_OVN.to_string(), "24.03.0");
        assert_eq!("24.03.0".parse::<Version>().unwrap(), OLDEST_OVN);
    }

    #[test]
    fn orders_by_number() {
        assert!(Version(3, 10, 0) > Version(3, 9, 9));
        assert!(Version(3, 1, 0) < OLDEST_OPEN_VSWITCH);
        assert!(Version(24, 3, 1) > OLDEST_OVN);
    }
}
