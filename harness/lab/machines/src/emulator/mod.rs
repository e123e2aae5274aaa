//! QEMU: one process a guest, in the network namespace of its launcher pod.
//!
//! * [`machine`]: the process, its monitor and its console
//! * [`command`]: what it is started with
//! * [`network`]: bridge and tap in the launcher pod
//! * [`qmp`]: the monitor's protocol
//! * [`console`]: the guest's console
//! * [`snapshot`]: guests that have booted, to be copied
//! * [`memory`]: whether there is room for one more

pub(crate) mod command;
pub(crate) mod console;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod qmp;
pub(crate) mod snapshot;
