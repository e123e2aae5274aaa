//! Kinds of `kubevirt.io`: virtual machines, their instances and migrations.
//!
//! * [`machine`]: `VirtualMachine`, what shall be
//! * [`instance`]: `VirtualMachineInstance`, what runs, and where
//! * [`devices`]: what a guest consists of
//! * [`migration`]: `VirtualMachineInstanceMigration`, the wish to run elsewhere, and how far it is
//! * [`installation`]: `KubeVirt`, that there is one
//! * [`definitions`]: all of them as CustomResourceDefinitions
//! * [`names`]: labels, annotations and finalizers as KubeVirt spells them, and the lab's own
//!
//! Only what the lab acts on is typed; schemas let everything else through, as manifests are written for clusters that know
//! more. Facts are those of KubeVirt v1.8.

pub mod definitions;
pub mod devices;
pub mod installation;
pub mod instance;
pub mod machine;
pub mod migration;
pub mod names;

pub use definitions::crds;
pub use devices::{Domain, Interface, KernelBoot, Network};
pub use installation::{KubeVirt, KubeVirtSpec, KubeVirtStatus};
pub use instance::{
    InstanceInterface, InstancePhase, InstanceSpec, InstanceStatus, MigrationState, VirtualMachineInstance,
};
pub use machine::{RunStrategy, VirtualMachine, VirtualMachineSpec, VirtualMachineStatus};
pub use migration::{
    MigrationPhase, MigrationStatus, VirtualMachineInstanceMigration, VirtualMachineInstanceMigrationSpec,
};
