//! The probe agent as a virtual machine: a kernel, an initramfs whose only program is the agent, and the image that holds
//! both for a cluster.
//!
//! * [`Kernel`]: what an unpacked kernel package holds
//! * [`initramfs`]: the agent and the modules that it needs, as the kernel unpacks them
//! * [`image`]: an image archive that `docker load`, `kind load image-archive` and registries' tools take
//! * `modules`: which modules, in which order, and how they are unpacked
//! * `cpio`, `tar`: the two archive formats, the same bytes for the same content

mod cpio;
mod error;
pub mod image;
mod initramfs;
mod kernel;
mod modules;
mod tar;

pub use error::Error;
pub use initramfs::initramfs;
pub use kernel::Kernel;
