//! The node side: what a node needs once, and pods' interfaces.
//!
//! * [`flows`]: br-ex: whose a packet from the wire is
//! * [`vswitch`]: ports of br-int, and whether their flows are installed
//! * [`links`]: interfaces, addresses and routes by netlink
//! * [`setup`]: the management port and routes of a node
//! * [`attach`]: a pod's interfaces
//! * [`management`]: the node's own ports on networks with virtual machines; [`announce`]: what it tells them, by [`raw`] frames
//! * [`answers`]: whether they are connected
//! * [`sync`]: waiting until all chassis have what the northbound database says

pub(crate) mod announce;
pub(crate) mod answers;
pub(crate) mod attach;
pub(crate) mod flows;
pub(crate) mod links;
pub(crate) mod management;
pub(crate) mod raw;
pub(crate) mod setup;
pub(crate) mod sync;
pub(crate) mod vswitch;

use udn_lab_sys::site::NodeSite;

use self::links::Links;
use self::vswitch::Vswitch;

/// A node's handles.
#[derive(Clone, Debug)]
pub(crate) struct NodeSide {
    pub(crate) site: NodeSite,
    pub(crate) vswitch: Vswitch,
    pub(crate) links: Links,
    /// Held while a management port is made.
    pub(crate) making_ports: std::sync::Arc<tokio::sync::Mutex<()>>,
}
