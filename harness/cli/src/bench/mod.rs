//! What `bench` measures with and writes.
//!
//! * [`figures`]: a figure beside its target, for people and for machines
//! * [`processes`]: the memory of this program's processes and of its agents
//! * [`runs`]: what a run's own events say of its speed
//! * [`wide`]: a matrix of more than five thousand cells

pub(crate) mod figures;
pub(crate) mod processes;
pub(crate) mod runs;
pub(crate) mod wide;
