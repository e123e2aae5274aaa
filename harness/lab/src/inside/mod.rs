//! The lab's main process, pid 1's only child: everything in it is a task of one runtime, or a child of it.
//!
//! * `main`: the order of the bring-up
//! * `server`: the API server that the lab is behind: `api`, its own, with its listeners and our client of it; or `joined`, one
//!   that was there before
//! * `dialer`: how the API server reaches node agents
//! * `component`: the node component, restarted by deleting its pod
//! * `objects`: what the lab puts into its API: kinds, namespaces, static pods
//! * `offer`: what the lab adds to one that was there before
//! * `leave`: what the lab has put into an API server that was there before is taken away
//! * `answer`: the control socket
//! * `start`: what the parent says first

mod answer;
mod api;
mod component;
mod dialer;
mod dns;
mod joined;
mod leave;
mod main;
mod objects;
mod offer;
mod server;
mod start;

pub(crate) use main::main;
pub(crate) use start::{ApiSide, Start};
