//! A VM under QEMU.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use tempfile::TempDir;
use udn_guest::{Kernel, initramfs};
use udn_lab_sys::netns::Netns;

/// The guest's MAC.
pub(crate) const MAC: &str = "0a:58:0a:4d:00:32";

/// What the guest's console is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    /// `ttyS0`.
    Serial,
    /// `hvc0`: a console of virtio.
    VirtioConsole,
    /// `vport0p1`: a plain port of virtio, which holds back instead of dropping what nobody reads.
    VirtioPort,
}

/// A running VM. It ends with this value.
pub(crate) struct Machine {
    process: Child,
    folder: TempDir,
    pub(crate) started: Instant,
}

/// The words of a command that a variable names.
pub(crate) fn command(variable: &str) -> Command {
    let words = std::env::var(variable).unwrap_or_else(|_| panic!("set {variable}; see tests/boot/main.rs"));
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a command"));
    command.args(words);
    command
}

impl Machine {
    /// Boots a guest behind `tap` of the namespace.
    pub(crate) fn start(netns: &Netns, tap: &str, port: Port) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = std::env::var("UDN_TEST_KERNEL").expect("set UDN_TEST_KERNEL; see tests/boot/main.rs");
        let kernel = Kernel::find(Path::new(&kernel)).expect("a kernel");
        let archive = initramfs(udn_binaries::AGENT, &kernel).expect("an initramfs");
        let initrd = folder.path().join("initramfs");
        std::fs::write(&initrd, &archive).expect("write");
        let socket = folder.path().join("console");
        let console = format!("socket,id=console,path={},server=on,wait=off", socket.display());
        let (name, device): (_, &[&str]) = match port {
            Port::Serial => ("ttyS0", &["-serial", "chardev:console"]),
            Port::VirtioConsole => {
                ("hvc0", &["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console"])
            }
            Port::VirtioPort => (
                "vport0p1",
                &["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=console,name=udn,nr=1"],
            ),
        };
        let said = File::create(folder.path().join("qemu.log")).expect("a file");
        let mut qemu = command("UDN_TEST_QEMU");
        qemu.args(["-machine", "q35", "-accel", "tcg", "-m", "96", "-display", "none", "-nodefaults", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 udn.console={name}")])
            .args(["-chardev", &console])
            .args(device)
            .args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no")])
            .args(["-device", &format!("virtio-net-pci,netdev=net,mac={MAC},romfile=")])
            .stdout(said.try_clone().expect("a second handle"))
            .stderr(said);
        let started = Instant::now();
        let process = netns.run(|| qemu.spawn()).expect("enter the namespace").expect("start QEMU");
        Self { process, folder, started }
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.folder.path().join("console")
    }

    /// Waits for the VM to end by itself.
    pub(crate) fn await_end(mut self) {
        let deadline = Instant::now() + super::console::PATIENCE;
        while self.process.try_wait().expect("wait").is_none() {
            assert!(Instant::now() < deadline, "the VM does not power off");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.folder.path().join("qemu.log")).unwrap_or_default();
            eprintln!("QEMU: {said}");
        }
    }
}
