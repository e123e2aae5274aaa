//! The lab's virtual machines: QEMU guests behind KubeVirt's API, and their live migration between nodes.
//!
//! Everything here is a client of the API server, whichever that is. Each instance has a launcher pod like KubeVirt's, in
//! whose network namespace the node starts QEMU. What is done to machines and not stored (console, pause, start, stop,
//! restart, migrate) is a group of its own, [`API_GROUP`], that an API server aggregates.
//!
//! | module | job |
//! |---|---|
//! | [`start`](Machines::start) | starts everything: [`Machines`], [`Options`] |
//! | `machine` | machines get instances |
//! | `instance` | instances get launcher pods and guests |
//! | `migration` | guests move |
//! | `emulator` | QEMU: its process, monitor, console, network |
//! | `guest` | the image that guests start from |
//! | [`api`](Machines::api) | what an API server aggregates: console, pause, start, stop, restart, migrate |
//! | `installation` | the object that says that there are machines |
//! | `context`, `watching`, `objects`, [`error`](Error) | what is shared; watching, writing, failing |
//!
//! Differences from KubeVirt, on purpose: guests are emulated (TCG), as a device `/dev/kvm` that can be opened need not be one
//! that runs a kernel; there are no disks; a guest ends at once when its instance is deleted, whatever grace it was given.

mod api;
mod context;
mod emulator;
mod error;
mod guest;
mod installation;
mod instance;
mod machine;
mod migration;
mod objects;
mod start;
mod watching;

pub use api::{API_GROUP, API_VERSION};
pub use error::Error;
pub use start::{Machines, Options};
