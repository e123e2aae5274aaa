//! Kubernetes access: provision, wait, reach agents, evidence, clean up.
//!
//! Implements what `udn-runner` needs of a cluster. Knows the API server and exec, nothing else: the lab and a real
//! cluster look the same from here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`connect`] | kubeconfig to client; versions, features, nodes |
//! | [`error`] | what can go wrong, and what to do about it |
//! | [`agent`] | the control stream to a probe agent: many requests in flight, cut and attached to again without a loss |
//! | [`names`] | labels, prefixes, paths: everything by which a run's objects are told |
//! | [`cluster`] | [`Kube`]: worlds and what they share |
//! | [`cleanup`] | finds and removes what runs left behind |
//! | [`boots`] | how long a guest takes to answer |
//! | [`rate`] | how many probes a second one agent makes |
//! | [`vm`] | VMs: their launcher pods, migrations, guests |
//!
//! Inside: `proxy` says when an environment's proxy is not meant, `objects` applies, reads and deletes any kind, `kinds` finds out how the API server serves it, `pods` watches
//! the pods of a world, `inject` makes fixtures runnable here, `provision` makes a world, `act` performs actions, `claims`
//! judges objects, `addresses` and `view` read annotations and agents' facts, `lookups` asks DNS servers, `flows` begins flows and looks at them, `probes` translates to the agent's words,
//! `nodes` has the vantage points outside of worlds, `world` puts it together, `evidence` collects state.

mod act;
mod addresses;
pub mod agent;
pub mod boots;
mod claims;
pub mod cleanup;
pub mod cluster;
mod component;
pub mod connect;
pub mod error;
mod evidence;
mod external;
mod external_ips;
mod flows;
mod inject;
mod kinds;
mod lookups;
pub mod names;
mod nodes;
mod objects;
mod pods;
mod probes;
mod provision;
mod proxy;
pub mod rate;
mod ready;
mod services;
mod slices;
mod view;
mod virtualization;
pub mod vm;
mod world;

pub use cleanup::Cleaned;
pub use cluster::Kube;
pub use connect::Connect;
pub use error::Error;
pub use names::new_run_id;
