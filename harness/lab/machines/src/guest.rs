//! The image `udn-conformance.local/guest`: kernel and first file system of every guest.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use udn_lab_sys::packages::Machines;

use crate::error::Error;

/// Its name.
pub(crate) const IMAGE: &str = "udn-conformance.local/guest";

/// Kernel and initramfs, as files in the lab.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Image {
    /// Makes it below `folder`. Blocks.
    pub(crate) fn make(machines: &Machines, folder: &Path) -> Result<Self, Error> {
        let (kernel, release) = machines.kernel_image()?;
        let failed = |error: std::io::Error| Error::Guest(error.to_string());
        std::fs::create_dir_all(folder).map_err(failed)?;
        let initramfs = folder.join("initramfs");
        std::fs::write(&initramfs, stopgap(machines, &release).map_err(failed)?).map_err(failed)?;
        Ok(Self { kernel, initramfs })
    }

    /// Whether an image's reference means this one.
    pub(crate) fn is(reference: &str) -> bool {
        let repository = reference.split(['@']).next().unwrap_or(reference);
        let repository = match repository.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => repository,
        };
        repository == IMAGE
    }
}

const MODULES: [&str; 9] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/char/virtio_console",
];

fn stopgap(machines: &Machines, release: &str) -> std::io::Result<Vec<u8>> {
    let busybox = Path::new(udn_lab_sys::sandbox::TREE).join("usr/bin/busybox");
    let mut out = Vec::new();
    let mut number = 0;
    let mut entry = |name: &str, mode: u32, data: &[u8]| {
        number += 1;
        let _ = write!(
            out,
            "070701{number:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        while out.len() % 4 != 0 {
            out.push(0);
        }
        out.extend_from_slice(data);
        while out.len() % 4 != 0 {
            out.push(0);
        }
    };
    for name in ["dev", "proc", "sys", "bin", "mods"] {
        entry(name, 0o040755, b"");
    }
    entry("bin/busybox", 0o100755, &std::fs::read(&busybox)?);
    let mut load = String::new();
    for module in MODULES {
        let path = machines.kernel.join("usr/lib/modules").join(release).join("kernel").join(format!("{module}.ko.xz"));
        if !path.exists() {
            continue;
        }
        let data = Command::new(&busybox).arg("xzcat").arg(&path).output()?.stdout;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        entry(&format!("mods/{name}"), 0o100644, &data);
        load += &format!("insmod /mods/{name}\n");
    }
    let script = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev\n{load}ip link set lo up; ip link set eth0 up\nwhile :; do setsid sh -c 'stty raw -echo; echo stopgap guest is up; exec sh' <>/dev/hvc0 >&0 2>&1; done\n"
    );
    entry("init", 0o100755, script.as_bytes());
    entry("TRAILER!!!", 0, b"");
    Ok(out)
}
