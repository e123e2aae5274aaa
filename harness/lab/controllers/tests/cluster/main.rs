//! The controllers against the lab's API server, with a kubelet that runs nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

mod deletion;
mod kubectl;
mod kubelet;
mod nodes;
mod resilience;
mod scheduling;
mod services;
mod support;
mod workloads;
