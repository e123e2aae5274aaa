//! Network policies: objects in, port groups, address sets and ACLs out, as OVN-Kubernetes lays them out.
//!
//! A policy acts on its namespace's network, and its peers are looked for in that network only. Everything up to
//! [`change`] is pure.
//!
//! * [`selector`]: label selectors
//! * [`rules`]: a NetworkPolicy, read
//! * [`world`]: what policies are evaluated against: pods with their place in a network, namespaces, nodes
//! * [`expression`]: OVN's match expressions
//! * [`plan`]: policies and world to port groups, address sets, ACLs
//! * [`change`]: what OVN has to what it should have, as operations
//! * [`follow`]: the controller's side; a pod's port is made together with its memberships

pub(crate) mod change;
mod expression;
mod follow;
pub(crate) mod plan;
pub(crate) mod rules;
mod selector;
pub(crate) mod world;

pub(crate) use follow::{Upcoming, leftovers};
