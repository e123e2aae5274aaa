//! Addresses: subnets of nodes, pools of pods, MACs.
//!
//! * [`mac`]: `0a:58:` and what follows
//! * [`pool`]: who has which address of a network
//! * [`subnet`]: cutting ranges, the nth address

pub(crate) mod mac;
pub(crate) mod pool;
pub(crate) mod subnet;

pub(crate) use mac::Mac;
