//! What happens to a pod.
//!
//! * [`manager`]: watches the node's pods and gives each a worker
//! * [`worker`]: one pod from its arrival to its end
//! * [`sandbox`]: network namespace and networks
//! * [`lifecycle`]: one container: start, watch, restart
//! * [`start`], [`environment`], [`files`]: what a container is started with
//! * [`stop`]: graceful ends
//! * [`hooks`]: `postStart` and `preStop`
//! * [`record`]: what is known of a pod; [`status`] words it, [`writer`] writes it
//! * [`backoff`]: when to try again

pub(crate) mod backoff;
mod environment;
mod files;
mod hooks;
mod lifecycle;
mod manager;
pub(crate) mod record;
mod sandbox;
mod start;
mod status;
mod stop;
mod worker;
mod writer;

pub(crate) use environment::{expand, field_value};
pub(crate) use manager::{Pods, run};
pub(crate) use sandbox::host_network;
pub(crate) use start::with_terminal;
