//! The Kubernetes kinds that the harness and the lab share: networks of k8s.ovn.org, attachments of
//! k8s.cni.cncf.io, and virtual machines of kubevirt.io.
//!
//! * [`udn`]: `UserDefinedNetwork`, one namespace's network
//! * [`cudn`]: `ClusterUserDefinedNetwork`, one network for all namespaces that a selector picks
//! * [`layer2`], [`layer3`], [`localnet`], [`transport`]: what a network of each topology and transport says
//! * [`shared`]: roles, IPAM modes, addresses as text, status
//! * [`nad`]: `NetworkAttachmentDefinition`, what a pod attaches to
//! * [`ipam_claim`]: `IPAMClaim`, addresses that outlive a pod
//! * [`vtep`]: `VTEP`, tunnel endpoints of EVPN networks; [`network_connect`]: `ClusterNetworkConnect`, joined networks
//! * [`kubevirt`]: virtual machines of kubevirt.io
//! * [`names`]: labels, annotations, finalizers and conditions of OVN-Kubernetes
//! * [`crds`](crds()): all kinds as CustomResourceDefinitions; [`admission_policies`]: the admission rules that ship with them
//!
//! Fields, limits and rules (CEL) are those of OVN-Kubernetes 8871cd9 (2026-08-21), its `pkg/crd`.

// kube-derive writes private copies of the public types to read their schemas.
#![allow(unreachable_pub)]

pub mod admission;
pub mod crds;
pub mod cudn;
pub mod ipam_claim;
pub mod kubevirt;
pub mod layer2;
pub mod layer3;
pub mod localnet;
pub mod nad;
pub mod names;
pub mod network_connect;
pub mod shared;
pub mod transport;
pub mod udn;
pub mod vtep;

pub use admission::admission_policies;
pub use crds::crds;
pub use cudn::{ClusterUserDefinedNetwork, ClusterUserDefinedNetworkSpec, NetworkSpec, NetworkTopology};
pub use ipam_claim::{IpamClaim, IpamClaimSpec, IpamClaimStatus};
pub use layer2::Layer2Config;
pub use layer3::{Layer3Config, Layer3Subnet};
pub use localnet::LocalnetConfig;
pub use nad::{NetworkAttachmentDefinition, NetworkAttachmentDefinitionSpec};
pub use network_connect::{ClusterNetworkConnect, ClusterNetworkConnectSpec};
pub use shared::{Cidr, Ip, IpamConfig, IpamLifecycle, IpamMode, NetworkRole, NetworkStatus};
pub use udn::{Topology, UserDefinedNetwork, UserDefinedNetworkSpec};
pub use vtep::{Vtep, VtepSpec};
