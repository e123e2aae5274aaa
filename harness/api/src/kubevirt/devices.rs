//! What a guest consists of.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields that are kept and not looked at.
pub type Other = Map<String, Value>;

/// The virtual hardware.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Domain {
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Disks, interfaces and the like.
    #[serde(default)]
    pub devices: Devices,
    /// How it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// Processors.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Cpu {
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// Memory.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Memory {
    /// What the guest has, a quantity such as `96Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// Devices.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Devices {
    /// Network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// A network interface of the guest.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The network of that name.
    pub name: String,
    /// A fixed MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// How it is bound, and everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// A network that interfaces are on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Network {
    /// Its name in this machine.
    pub name: String,
    /// Set for the pod's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Value>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// How a guest starts.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Firmware {
    /// From a kernel, without a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_boot: Option<KernelBoot>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

/// A kernel from a container image.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelBoot {
    /// What the kernel is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_args: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<KernelContainer>,
}

/// An image with a kernel in it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelContainer {
    /// The image.
    pub image: String,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}
