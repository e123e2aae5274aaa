//! Underlay, nodes, Open vSwitch and OVN daemons, and their health.
//!
//! * [`central`]: NB and SB databases, northd
//! * [`daemon`]: starting, watching and explaining a daemon
//! * [`health`]: what went wrong since
//! * [`links`]: interfaces, addresses and routes by netlink
//! * `mend`: node components restarted on purpose, and daemons that died
//! * [`node`]: a node's Open vSwitch and ovn-controller
//! * `queues`, `threads`: what Open vSwitch has no setting for
//! * [`underlay`]: the wire between nodes, the router and the external host
//! * [`up`]: all of it, side by side

pub mod central;
pub mod daemon;
pub mod health;
pub mod links;
mod mend;
pub mod node;
mod queues;
mod threads;
pub mod underlay;
pub mod up;

pub use up::{Ground, NODES};
