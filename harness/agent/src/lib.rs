//! The probe agent: what runs in a pod or VM, and what is said to it.
//!
//! * [`protocol`]: what is said on the control stream; all that the other side needs
//! * [`program`]: the agent's command line
//! * `agent`: the event loop, and who gets which event and which request
//! * `control`: the control stream: attachments, answers kept until acknowledged
//! * `probe`: attempts over TCP, UDP and ICMP, classified from the socket
//! * `flow`: connections measured while something happens to their ends, and what echoes them
//! * `listen`: listeners with identity banners
//! * `witness`: arrivals, by raw capture or by listeners
//! * `guest`: a VM of the agent's own: devices, modules, and the network's configuration
//! * `facts`: interfaces, routes, neighbours, resolvers
//! * `netlink`: asking and telling the kernel by routing netlink
//! * `reactor`, `slab`, `clock`, `sys`: one thread's readiness and timers, numbered slots, time, raw system calls
//!
//! Without the standard library, whose static form alone is larger than the whole agent may be: it has to travel into
//! pods by exec. One thread, because thousands of waiting sockets need no more.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod agent;
mod clock;
mod control;
mod facts;
mod flow;
mod guest;
mod listen;
mod netlink;
mod probe;
pub mod program;
pub mod protocol;
mod reactor;
mod slab;
mod sys;
mod witness;
