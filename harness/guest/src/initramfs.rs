//! The agent and the modules that it needs, as the kernel unpacks them.

use crate::cpio::Cpio;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::modules;

/// Major and minor number of the kernel's console, which the first process has as its standard streams.
const CONSOLE: (u32, u32) = (5, 1);

/// Makes the initramfs of a guest whose only program is the agent (`udn_binaries::AGENT`): `/init` is the agent,
/// `/modules.order` names the modules in the order in which it loads them. The same agent and kernel give the same bytes.
///
/// # Errors
/// When a module that a guest needs cannot be found or unpacked.
pub fn initramfs(agent: &[u8], kernel: &Kernel) -> Result<Vec<u8>, Error> {
    let mut cpio = Cpio::default();
    for folder in ["dev", "etc", "modules", "proc", "run", "sys", "tmp"] {
        cpio.folder(folder);
    }
    cpio.device("dev/console", 0o600, CONSOLE);
    cpio.file("init", 0o755, agent);
    let mut order = String::new();
    for module in modules::collect(kernel)? {
        let path = format!("modules/{}.ko", module.name);
        cpio.file(&path, 0o644, &module.content);
        order.push_str(&format!("/{path}\n"));
    }
    cpio.file("modules.order", 0o644, order.as_bytes());
    Ok(cpio.finish())
}
