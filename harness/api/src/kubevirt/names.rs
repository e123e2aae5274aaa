//! Labels, annotations, finalizers and reasons as KubeVirt spells them, and those of the lab.

/// API group of all kinds.
pub const GROUP: &str = "kubevirt.io";
/// API group of console, start, stop and the like.
pub const SUBRESOURCES_GROUP: &str = "subresources.kubevirt.io";
/// Launcher pod label; value [`LAUNCHER`].
pub const APP: &str = "kubevirt.io";
/// What launcher pods are called.
pub const LAUNCHER: &str = "virt-launcher";
/// Launcher pod label: the machine.
pub const VM_NAME: &str = "vm.kubevirt.io/name";
/// Launcher pod label and annotation: the machine.
pub const DOMAIN: &str = "kubevirt.io/domain";
/// Launcher pod label: UID of the instance that it was made for.
pub const CREATED_BY: &str = "kubevirt.io/created-by";
/// Launcher pod label: UID of the migration that it is the target of.
pub const MIGRATION_JOB: &str = "kubevirt.io/migrationJobUID";
/// Launcher pod annotation: name of the migration that it is the target of.
pub const MIGRATION_JOB_NAME: &str = "kubevirt.io/migrationJobName";
/// Instance label: the node that runs it.
pub const NODE_NAME: &str = "kubevirt.io/nodeName";
/// Label of what belongs to a machine, such as its IPAMClaims.
pub const VM: &str = "kubevirt.io/vm";
/// Launcher pod annotation: since when the guest runs there; the network moves over.
pub const TARGET_READY: &str = "kubevirt.io/migration-target-ready-timestamp";
/// Machine annotation: addresses that it asks for, JSON by network.
pub const ADDRESSES: &str = "network.kubevirt.io/addresses";
/// Finalizer of instances.
pub const INSTANCE_FINALIZER: &str = "foregroundDeleteVirtualMachine";
/// Finalizer of machines.
pub const MACHINE_FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
/// Finalizer of migrations.
pub const MIGRATION_FINALIZER: &str = "kubevirt.io/migrationJobFinalize";
/// Finalizer of IPAMClaims that belong to machines.
pub const CLAIM_FINALIZER: &str = "kubevirt.io/persistent-ipam";
/// Value of [`APP`] on objects of the installation.
pub const VERSION: &str = "v1.8.4";

/// The lab's own, on a migration or machine: `copy` copies memory; else it is shared.
pub const LAB_MIGRATION: &str = "lab.udn-conformance.io/migration";
/// The lab's own, on a machine: `kernel` boots its guest from the kernel; else it goes on from a copy of one that has booted.
pub const LAB_BOOT: &str = "lab.udn-conformance.io/boot";
/// The lab's own, on a migration, or on a node for all that come to it: what goes wrong.
pub const LAB_FAIL: &str = "lab.udn-conformance.io/fail";
/// The lab's own, written on a migration: when the guest stopped at the source, RFC 3339 with microseconds.
pub const LAB_STOPPED: &str = "lab.udn-conformance.io/stopped-at";
/// The lab's own, written on a migration: when the guest went on at the target, RFC 3339 with microseconds.
pub const LAB_RESUMED: &str = "lab.udn-conformance.io/resumed-at";
/// The lab's own, written on a migration: how long it took, milliseconds, as the emulator says.
pub const LAB_TOTAL_MS: &str = "lab.udn-conformance.io/total-ms";
