//! The agent as it is shipped, in network namespaces with real packets, routes and packet filters.
//!
//! Needs the right to make namespaces, and `ip` (iproute2) and `nft` (nftables) of the system.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // All of this is test code.

mod bulk;
mod classification;
mod console;
mod echo_flows;
mod evidence;
mod flow_ends;
mod flows;
mod peers;
mod resolve;
mod stream;
mod support;
