//! The lab seen from outside: start, stop, status, commands inside.
//!
//! * [`lab`]: a lab that this program started
//! * [`running`]: a lab found by its name
//! * `relay`: from inside to an API server that the host reaches
//! * `state`: what is kept about a lab on disk, below the cache folder

pub mod lab;
pub(crate) mod relay;
pub mod running;
mod state;

pub use lab::{Lab, Options, Progress};
pub use running::{Running, command, down, find, list};
