//! QEMU and a kernel for guests: the host's QEMU where it is new enough, else packages; fetched when the first virtual
//! machine asks, not before.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::apt::Download;
use super::cache::{Progress, Recipe, provide, read_facts, version_of};
use super::sources::Source;
use super::version::{OLDEST_QEMU, Version};
use crate::error::Error;
use crate::site::Tools;

/// The emulator's program.
pub const QEMU: &str = "qemu-system-x86_64";
/// The emulator with the firmware that it loads.
const EMULATOR: [&str; 4] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"];
/// Kernels without drivers for hardware, by distribution: small, and with all that a virtual machine has.
const KERNELS: [(&str, &str); 2] = [("debian", "linux-image-cloud-amd64"), ("ubuntu", "linux-image-virtual")];

/// What virtual machines run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// Root of the tree that QEMU is in; `/` for the host's own.
    pub emulator: PathBuf,
    /// QEMU's version.
    pub qemu: Version,
    /// Root of the tree that the kernel and its modules are in.
    pub kernel: PathBuf,
    /// Where the packages come from, such as `debian trixie`.
    pub origin: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    /// None where the host's is used.
    qemu: Option<Version>,
    origin: String,
}

impl Machines {
    /// A command that runs QEMU, with its firmware and modules where they are.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Tools { root: self.emulator.clone() }.command(QEMU);
        if self.emulator != Path::new("/") {
            for folder in ["qemu", "seabios"] {
                command.arg("-L").arg(self.emulator.join("usr/share").join(folder));
            }
            let libraries = Tools { root: self.emulator.clone() }.libraries();
            command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        }
        command
    }
}

/// Finds or fetches QEMU and the kernel. Milliseconds once cached. Blocks.
///
/// # Errors
/// A host of another architecture, an unknown distribution, no network, a full disk: each with its remedy.
pub fn ensure(cache: &Path, progress: &dyn Fn(Progress)) -> Result<Machines, Error> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::Machines {
            reason: format!("guests are x86-64, it is {}", std::env::consts::ARCH),
            remedy: "use an x86-64 host for scenarios with virtual machines",
        });
    }
    let source = Source::of_host(Path::new("/"))?;
    let kernel = KERNELS.iter().find(|(distribution, _)| *distribution == source.distribution);
    let Some((_, kernel)) = kernel else {
        return Err(Error::UnknownDistribution { found: source.distribution });
    };
    let found = of_host(Path::new("/"));
    let own = found.filter(|version| *version >= OLDEST_QEMU);
    let reason = match (found, own) {
        (Some(found), None) => format!("the host's QEMU {found} is older than {OLDEST_QEMU}; "),
        _ => String::new(),
    };
    let (kind, wanted) = match own {
        Some(_) => ("kernel", vec![*kernel]),
        None => ("machines", [EMULATOR.as_slice(), &[kernel]].concat()),
    };
    let facts = |downloads: &[Download], origin| facts(downloads, origin, own.is_none());
    let recipe = Recipe { kind, wanted: &wanted, reason: &reason, facts: &facts };
    let folder = provide(cache, &source, &recipe, progress)?;
    let Facts { qemu, origin } = read_facts(&folder)?;
    let root = folder.join("root");
    let (emulator, qemu) = match (own, qemu) {
        (Some(version), _) => ("/".into(), version),
        (None, Some(version)) => (root.clone(), version),
        (None, None) => {
            return Err(Error::Machines {
                reason: format!("{} does not say which QEMU it has", folder.display()),
                remedy: "remove that folder and try again",
            });
        }
    };
    Ok(Machines { emulator, qemu, kernel: root, origin })
}

fn facts(downloads: &[Download], origin: String, with_qemu: bool) -> Result<serde_json::Value, Error> {
    let qemu = version_of(downloads, "qemu-system-x86");
    if with_qemu && qemu.is_none_or(|version| version < OLDEST_QEMU) {
        let version = qemu.map_or_else(|| "none".into(), |version| version.to_string());
        return Err(Error::Machines {
            reason: format!("{origin} has QEMU {version}, the lab needs >= {OLDEST_QEMU}"),
            remedy: "install a newer QEMU on the host",
        });
    }
    Ok(serde_json::to_value(Facts { qemu, origin }).unwrap_or_default())
}

/// The version of the host's QEMU, where it has one with its firmware.
fn of_host(root: &Path) -> Option<Version> {
    let path = ["usr/bin", "usr/local/bin"].map(|folder| root.join(folder).join(QEMU));
    let path = path.into_iter().find(|path| path.exists())?;
    let output = Command::new(path).arg("--version").output().ok()?;
    Version::find(&String::from_utf8_lossy(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download(file: &str) -> Download {
        Download { file: file.into(), size: 1 }
    }

    #[test]
    fn an_old_emulator_is_refused_with_its_remedy() {
        let old = [download("qemu-system-x86_1%3a5.2+dfsg-11_amd64.deb")];
        let message = facts(&old, "debian bullseye".into(), true).unwrap_err().to_string();
        assert!(message.contains("debian bullseye has QEMU 5.2.0") && message.contains("install"), "{message}");
        let new = [download("qemu-system-x86_1%3a10.0.13+ds-0+deb13u1_amd64.deb")];
        assert_eq!(facts(&new, "debian trixie".into(), true).unwrap()["qemu"], "10.0.13");
        assert!(facts(&[], "debian trixie".into(), false).is_ok(), "with the host's QEMU only a kernel is fetched");
    }
}
