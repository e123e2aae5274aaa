//! What QEMU is started with. Source and target of a migration differ in nothing but where they listen.

use std::path::PathBuf;
use std::process::Command;

use udn_lab_sys::packages::Machines;

use super::network::{Card, TAP};

/// A guest, as QEMU is to make it.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// For messages and process lists.
    pub(crate) name: String,
    /// Processors.
    pub(crate) cores: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u64,
    /// The file that is its memory.
    pub(crate) memory: PathBuf,
    /// Kernel image.
    pub(crate) kernel: PathBuf,
    /// Its first file system.
    pub(crate) initramfs: PathBuf,
    /// What the kernel is told.
    pub(crate) arguments: String,
}

/// Where the lab listens for the emulator.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    /// Monitor.
    pub(crate) monitor: PathBuf,
    /// Console.
    pub(crate) console: PathBuf,
    /// File with what the kernel prints.
    pub(crate) log: PathBuf,
}

/// Which device the guest's agent answers on: a port of its own. Of a console (`hvc0`) the kernel throws away what comes while
/// nobody reads the other end.
const CONSOLE: &str = "udn.console=vport0p1";

/// What the kernel is told: the machine's own words, and what the lab needs.
pub(crate) fn arguments(own: &str) -> String {
    let mut words: Vec<&str> = own.split_whitespace().collect();
    if !words.iter().any(|word| word.starts_with("console=")) {
        words.insert(0, "console=ttyS0");
    }
    if !words.contains(&"quiet") {
        words.push("quiet");
    }
    // An emulated processor has nothing to mitigate, and self-tests take half a second there.
    words.extend([CONSOLE, "panic=-1", "mitigations=off", "nokaslr", "cryptomgr.notests", "no_timer_check"]);
    words.join(" ")
}

/// The emulator's command line. `wired`: the card leads to the tap of the network namespace that the emulator runs in; else
/// nowhere.
pub(crate) fn command(
    machines: &Machines,
    guest: &Guest,
    card: &Card,
    wired: bool,
    sockets: &Sockets,
    incoming: bool,
) -> Command {
    let mut command = machines.command();
    let memory =
        format!("memory-backend-file,id=ram,size={}M,mem-path={},share=on", guest.memory_mib, guest.memory.display());
    // Checksums are the guest's own: frames with partial ones would reach Open vSwitch's userspace datapath, which takes
    // them for finished.
    let network = format!(
        "virtio-net-pci,netdev=net0,mac={},host_mtu={},romfile=,csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,\
         guest_ecn=off,guest_ufo=off",
        card.mac, card.mtu
    );
    let socket = |id: &str, path: &PathBuf| format!("socket,id={id},path={}", path.display());
    command.args(["-name", &guest.name, "-machine", "q35,memory-backend=ram", "-accel", "tcg"]);
    command.args(["-smp", &guest.cores.to_string(), "-m", &format!("{}M", guest.memory_mib), "-object", &memory]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initramfs).args(["-append", &guest.arguments]);
    command.args(["-chardev", &socket("monitor", &sockets.monitor), "-mon", "chardev=monitor,mode=control"]);
    command.args(["-chardev", &socket("console", &sockets.console)]);
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=console,name=udn,nr=1"]);
    command.args(["-serial", &format!("file:{}", sockets.log.display())]);
    let wire = format!("tap,id=net0,ifname={TAP},script=no,downscript=no,vhost=off,vnet_hdr=off");
    command.args(["-netdev", if wired { &wire } else { "hubport,id=net0,hubid=0" }]);
    command.args(["-device", &network, "-device", "virtio-rng-pci"]);
    if incoming {
        command.args(["-incoming", "defer"]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_own_words_are_kept() {
        let all = arguments("console=ttyS0 quiet lab.flag=1");
        assert!(all.starts_with("console=ttyS0 quiet lab.flag=1 udn.console=vport0p1 "), "{all}");
        assert!(arguments("").starts_with("console=ttyS0 quiet udn.console=vport0p1"));
    }
}
