//! The lab's main process, pid 1's only child: everything in it is a task of one runtime, or a child of it.
//!
//! * `main`: the order of the bring-up
//! * `api`: the API server, its listeners and our client of it
//! * `dialer`: how the API server reaches node agents
//! * `component`: the node component, restarted by deleting its pod
//! * `objects`: what the lab puts into its API: kinds, namespaces, static pods
//! * `answer`: the control socket
//! * `start`: what the parent says first

mod answer;
mod api;
mod component;
mod dialer;
mod dns;
mod main;
mod objects;
mod start;

pub(crate) use main::main;
pub(crate) use start::Start;
