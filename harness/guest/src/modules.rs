//! Which modules a guest needs, in which order, and how they are unpacked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::kernel::Kernel;

/// What a guest needs: its bus, its network interface, its console. Each brings what it depends on.
const NEEDED: [&str; 3] = ["virtio_pci", "virtio_net", "virtio_console"];

/// How deep folders of modules are nested at most.
const DEEPEST: usize = 12;

/// A module, unpacked.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The modules, each behind those that it depends on.
pub(crate) fn collect(kernel: &Kernel) -> Result<Vec<Module>, Error> {
    let mut files = BTreeMap::new();
    find(&kernel.modules.join("kernel"), DEEPEST, &mut files)?;
    let builtin = kernel.modules.join("modules.builtin");
    // A package without this list has nothing built in that anybody could ask for.
    let builtin = fs::read_to_string(builtin).unwrap_or_default();
    let builtin = builtin.lines().filter_map(|line| name_of(Path::new(line))).collect();
    let mut order = Order { kernel, files, builtin, modules: Vec::new() };
    for name in NEEDED {
        order.add(name)?;
    }
    Ok(order.modules)
}

struct Order<'a> {
    kernel: &'a Kernel,
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<(), Error> {
        if self.modules.iter().any(|module| module.name == name) || self.builtin.iter().any(|built| built == name) {
            return Ok(());
        }
        // Removed, so that two that depend on each other end here and not never.
        let Some(path) = self.files.remove(name) else {
            return Err(Error::NoModule { name: name.to_owned(), version: self.kernel.version.clone() });
        };
        let content = unpack(&path)?;
        for dependency in dependencies(&content) {
            self.add(&dependency)?;
        }
        self.modules.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

fn find(folder: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            if depth > 0 {
                find(&entry.path(), depth - 1, files)?;
            }
        } else if let Some(name) = name_of(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `net-failover.ko.xz` is the module `net_failover`.
fn name_of(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    (rest.is_empty() || rest.starts_with('.')).then(|| name.replace('-', "_"))
}

fn unpack(path: &Path) -> Result<Vec<u8>, Error> {
    let packed = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let failed = |reason: String| Error::Unpack { path: path.to_owned(), reason };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(packed),
        Some("xz") => {
            let mut content = Vec::new();
            lzma_rs::xz_decompress(&mut packed.as_slice(), &mut content).map_err(|error| failed(error.to_string()))?;
            Ok(content)
        }
        other => Err(failed(format!("it is compressed as .{}", other.unwrap_or_default()))),
    }
}

/// What a module says that it depends on. The package has no list of that: it is made where it is installed.
fn dependencies(module: &[u8]) -> Vec<String> {
    // The section `.modinfo` is a row of texts that end in 0.
    const KEY: &[u8] = b"\0depends=";
    let start = module.windows(KEY.len()).position(|window| window == KEY).map(|at| at + KEY.len());
    let text = start.and_then(|start| module.get(start..)?.split(|byte| *byte == 0).next());
    let text = text.map(String::from_utf8_lossy).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(folder: &Path, modules: &[(&str, &str)], builtin: &str) -> Kernel {
        for (path, depends) in modules {
            let path = folder.join("kernel").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let content = format!("ELF\0license=GPL\0depends={depends}\0name=x\0");
            let packed = match path.extension().and_then(|extension| extension.to_str()) {
                Some("xz") => {
                    let mut packed = Vec::new();
                    lzma_rs::xz_compress(&mut content.as_bytes(), &mut packed).expect("packed");
                    packed
                }
                _ => content.into_bytes(),
            };
            fs::write(path, packed).expect("a file");
        }
        fs::write(folder.join("modules.builtin"), builtin).expect("a file");
        Kernel { version: "6".into(), image: folder.into(), modules: folder.into() }
    }

    #[test]
    fn each_module_comes_behind_what_it_depends_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let modules = [
            ("drivers/virtio/virtio.ko.xz", "virtio_ring"),
            ("drivers/virtio/virtio_ring.ko", ""),
            ("drivers/virtio/virtio_pci.ko", "virtio,virtio_ring"),
            ("drivers/net/virtio_net.ko", "virtio,net-failover"),
            ("drivers/net/net_failover.ko.xz", "failover"),
            ("net/core/failover.ko", ""),
            ("drivers/unused.ko.zst", ""),
        ];
        let kernel = kernel(folder.path(), &modules, "kernel/drivers/char/virtio_console.ko\n");
        let names: Vec<_> = collect(&kernel).expect("modules").into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_pci", "failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = kernel(folder.path(), &[("virtio_pci.ko", "virtio")], "");
        let error = collect(&kernel).expect_err("no virtio").to_string();
        assert!(error.contains("module virtio of the kernel 6"), "{error}");
    }

    #[test]
    fn an_unknown_compression_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = kernel(folder.path(), &[("virtio_pci.ko.zst", "")], "");
        let error = collect(&kernel).expect_err("zst").to_string();
        assert!(error.contains(".zst") && error.contains("virtio_pci"), "{error}");
    }
}
