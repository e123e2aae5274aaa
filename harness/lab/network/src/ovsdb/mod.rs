//! Databases of Open vSwitch and OVN (RFC 7047) over their unix sockets.
//!
//! * [`client`]: one connection, many requests in flight
//! * [`follow`]: a table's rows, kept current
//! * [`transaction`]: operations, built row by row

pub(crate) mod client;
pub(crate) mod follow;
pub(crate) mod transaction;

pub(crate) use client::Client;
pub(crate) use transaction::Transaction;
