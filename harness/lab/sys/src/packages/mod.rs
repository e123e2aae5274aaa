//! Open vSwitch, OVN, the pods' image, and what virtual machines need: found on the host or fetched once into a cache folder, never installed.
//!
//! * [`version`]: versions as the programs and package files print them, and the oldest that works
//! * [`host`]: what the host has
//! * [`sources`]: the host's own package mirror, from its apt configuration
//! * [`apt`]: the system's own apt with a private state folder
//! * [`tree`]: packages unpacked into a tree that pods can use as root
//! * [`elf`]: which shared libraries a program asks for
//! * [`cache`]: the folder, its lock, and the entry point [`ensure`]
//! * [`machines`]: QEMU and the guests' kernel, for labs that have virtual machines
//! * [`courier`]: a process on the host's side that fetches them for a lab, which has no way out

pub mod apt;
pub mod cache;
pub mod courier;
pub mod elf;
pub mod host;
pub mod machines;
pub mod sources;
pub mod tree;
pub mod version;

pub use cache::{Packages, Progress, default_folder, ensure};
pub use machines::Machines;
pub use version::{Version, Versions};
