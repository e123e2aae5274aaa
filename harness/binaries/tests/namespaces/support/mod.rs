//! * [`agent`]: the agent as a process, and a client that waits for its answers
//! * [`flow`]: begins, watches and ends flows
//! * [`topology`]: two machines with a router between them

pub(crate) mod agent;
#[allow(dead_code)] // Not every user of the support has flows.
pub(crate) mod flow;
pub(crate) mod topology;
