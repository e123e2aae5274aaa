//! * [`agent`]: the agent as a process, and a client that waits for its answers
//! * [`topology`]: two machines with a router between them

pub(crate) mod agent;
pub(crate) mod topology;
