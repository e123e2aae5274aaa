//! What the kernel must allow, checked before anything is fetched or started.

use std::fs::{self, OpenOptions};
use std::io;

use crate::error::Error;

/// # Errors
/// [`Error::Tun`] when `/dev/net/tun` cannot be used.
pub fn check() -> Result<(), Error> {
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(drop).map_err(|source| {
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => "load the kernel module tun (modprobe tun), or give the container that device",
            io::ErrorKind::PermissionDenied => {
                "run as root, or let your user read and write it (chmod 0666 /dev/net/tun)"
            }
            _ => "the kernel needs its tun driver (modprobe tun)",
        };
        Error::Tun { source, remedy }
    })
}

/// Explains why namespaces were refused.
#[must_use]
pub fn namespaces_refused(errno: i32) -> Error {
    let says = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    Error::Namespaces {
        source: io::Error::from_raw_os_error(errno),
        remedy: namespace_remedy(errno == libc::ENOSPC, &says),
    }
}

/// `full`: a limit is reached, which the kernel calls a device without space.
fn namespace_remedy(full: bool, says: &dyn Fn(&str, &str) -> bool) -> &'static str {
    if says("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
    } else if says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "run as root, or let AppArmor allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
    } else if says("/proc/sys/user/max_user_namespaces", "0") {
        "run as root, or allow user namespaces (sysctl user.max_user_namespaces=10000)"
    } else if full {
        "raise the limits of namespaces (sysctl -a | grep '^user.max_.*_namespaces')"
    } else {
        "run as root; in a container, run it privileged (docker run --privileged)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_follows_the_cause() {
        let only = |wanted: &'static str| move |path: &str, _: &str| path.ends_with(wanted);
        assert!(namespace_remedy(false, &only("unprivileged_userns_clone")).contains("unprivileged_userns_clone=1"));
        assert!(namespace_remedy(false, &only("apparmor_restrict_unprivileged_userns")).contains("AppArmor"));
        assert!(namespace_remedy(false, &only("max_user_namespaces")).contains("max_user_namespaces="));
        assert!(namespace_remedy(false, &|_, _| false).contains("--privileged"));
        assert!(namespace_remedy(true, &|_, _| false).contains("max_"));
        let message = namespaces_refused(libc::EPERM).to_string();
        assert!(message.contains("Operation not permitted") && message.contains("root"), "{message}");
    }
}
