//! User Defined Networks on real OVN: controllers and the node side.
//!
//! Objects (UDN, CUDN, NetworkAttachmentDefinition, pods) become rows of OVN's northbound database as OVN-Kubernetes would
//! write them, names included, and pods become ports of Open vSwitch. [`Network`] is all of it.
//!
//! * [`network`]: what the lab starts and the node agent calls
//! * `controller`: objects to networks, addresses, annotations, conditions
//! * `topology`: networks as rows of OVN, pure
//! * `service`: services as load balancers and flows, pure
//! * `layout`, `definition`, `address`, `naming`, `annotation`: arithmetic and notation, pure
//! * `policy`: network policies
//! * `node`: br-ex, br-int, interfaces
//! * `ovsdb`: databases over unix sockets

pub mod error;
pub mod network;

mod address;
mod annotation;
mod controller;
mod definition;
mod layout;
mod naming;
mod node;
mod ovsdb;
mod policy;
mod service;
mod topology;

pub use error::Error;
pub use network::{Network, Options, probe_source};
