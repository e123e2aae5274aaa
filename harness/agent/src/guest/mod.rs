//! A VM of the agent's own: the agent is its first process.
//!
//! * [`boot`]: file systems, kernel settings, modules
//! * [`gate`]: where a guest waits to be copied
//! * [`configuration`]: which part gets which event, and what comes of their answers
//! * [`devices`]: when something new appears
//! * [`dhcp4`], [`dhcp6`]: the clients, without a socket or a clock; [`options4`], [`options6`]: their messages
//! * [`router`]: router advertisements
//! * [`link`]: interfaces, addresses and routes as the kernel is told of them
//! * [`sockets`]: how DHCP's messages come and go
//! * [`log`]: what went wrong

pub(crate) mod boot;
mod configuration;
mod devices;
mod dhcp4;
mod dhcp6;
pub(crate) mod gate;
mod link;
mod log;
mod options4;
mod options6;
mod router;
mod sockets;

pub(crate) use self::configuration::Guest;
pub(crate) use self::log::Log;
