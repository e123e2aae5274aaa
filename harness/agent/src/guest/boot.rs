//! The first things that the first process does.

use alloc::string::String;

use rustix::fs::{Mode, OFlags, mkdir, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

use super::log::Log;
use crate::facts::read_file;

/// Names the modules to load, a path a line, in this order.
const MODULES: &str = "/modules.order";

/// The console unless the kernel's command line says otherwise.
const CONSOLE: &str = "ttyS0";

/// Names the console on the kernel's command line.
const CONSOLE_ARGUMENT: &str = "udn.console=";

/// Source, target, type.
const MOUNTS: [(&str, &str, &str); 5] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
];

/// File and value. The interface settings are for interfaces that come later, so they have to precede their driver:
/// without them an address is not usable at once, and routes differ before and after for no reason.
const SETTINGS: [(&str, &str); 9] = [
    // Only what ends the machine is to come between the lines on the console.
    ("/proc/sys/kernel/printk", "1 4 1 7"),
    ("/proc/sys/net/ipv6/conf/all/accept_dad", "0"),
    ("/proc/sys/net/ipv6/conf/default/accept_dad", "0"),
    ("/proc/sys/net/ipv6/conf/all/accept_ra", "1"),
    ("/proc/sys/net/ipv6/conf/default/accept_ra", "1"),
    // Link-local addresses from the MAC: port security lets no others pass.
    ("/proc/sys/net/ipv6/conf/all/addr_gen_mode", "0"),
    ("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "0"),
    ("/proc/sys/net/ipv6/conf/all/use_tempaddr", "0"),
    ("/proc/sys/net/ipv6/conf/default/use_tempaddr", "0"),
];

/// Makes the machine fit for the agent; says which device is its console.
pub(crate) fn prepare(log: &mut Log) -> String {
    for (source, target, kind) in MOUNTS {
        log.check(&["create ", target].concat(), ignore_existing(mkdir(target, Mode::from_raw_mode(0o755))));
        // The kernel may have mounted /dev by itself.
        let mounted = mount(source, target, kind, MountFlags::empty(), None);
        log.check(&["mount ", target].concat(), if mounted == Err(Errno::BUSY) { Ok(()) } else { mounted });
    }
    log.check("create /etc", ignore_existing(mkdir("/etc", Mode::from_raw_mode(0o755))));
    for (file, value) in SETTINGS {
        log.check(&["set ", file].concat(), write_file(file, value));
    }
    load_modules(log);
    let command_line = read_file("/proc/cmdline").unwrap_or_default();
    ["/dev/", console_of(&command_line)].concat()
}

fn load_modules(log: &mut Log) {
    // No list: everything needed is in the kernel.
    let order = read_file(MODULES).unwrap_or_default();
    for path in order.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let loaded = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|module| finit_module(&module, c"", 0));
        log.check(&["load ", path].concat(), ignore_existing(loaded));
    }
}

/// The last one wins, as with the kernel's own arguments.
fn console_of(command_line: &str) -> &str {
    let named = command_line.split_whitespace().filter_map(|word| word.strip_prefix(CONSOLE_ARGUMENT)).next_back();
    let name = named.map(|name| name.strip_prefix("/dev/").unwrap_or(name));
    name.filter(|name| !name.is_empty()).unwrap_or(CONSOLE)
}

fn ignore_existing(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::EXIST) { Ok(()) } else { result }
}

/// Replaces a small file's content.
pub(super) fn write_file(path: &str, content: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::from_raw_mode(0o644))?;
    let mut rest = content.as_bytes();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Lines of a resolver's configuration.
pub(super) fn resolv_conf(resolvers: &[String], search: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&["search ", &search.join(" "), "\n"].concat());
    }
    for resolver in resolvers {
        text.push_str(&["nameserver ", resolver.as_str(), "\n"].concat());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_what_the_kernel_was_told_last() {
        assert_eq!(console_of("quiet console=ttyS0"), "ttyS0");
        assert_eq!(console_of("udn.console=ttyS1 udn.console=hvc0 quiet"), "hvc0");
        assert_eq!(console_of("udn.console=/dev/vport0p1"), "vport0p1");
        assert_eq!(console_of("udn.console="), "ttyS0");
    }

    #[test]
    fn a_resolver_configuration_reads_as_it_was_meant() {
        let text = resolv_conf(&["10.96.0.10".into(), "fd00::a".into()], &["a.b".into(), "c".into()]);
        assert_eq!(text, "search a.b c\nnameserver 10.96.0.10\nnameserver fd00::a\n");
    }
}
