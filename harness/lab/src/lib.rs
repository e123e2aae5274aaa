//! The embedded cluster: real OVN and Open vSwitch in namespaces, behind a Kubernetes API.
//!
//! * [`internal`]: the program as a process of the lab; call it first of all in `main`
//! * [`host`]: the lab seen from outside: start, stop, status, commands inside
//! * `inside`: the lab's main process: API server, controllers, node agents, network
//! * `existing`: an API server that is there already, for a lab to join
//! * [`control`]: what a running lab answers
//! * [`error`]: what can go wrong, with its remedy
//! * [`pki`]: one authority per lab, its servers and clients

pub mod control;
pub mod error;
mod existing;
pub mod host;
mod inside;
pub mod internal;
pub mod pki;

pub use control::Status;
pub use error::Error;
pub use host::{Lab, Options, Progress, Running, command, down, find, list};
pub use internal::internal;
pub use udn_lab_sys::packages::{Version, Versions, default_folder};
