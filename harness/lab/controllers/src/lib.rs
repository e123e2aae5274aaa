//! The scheduler, workload, namespace and garbage controllers of the lab, as clients of its API.
//!
//! Each is an ordinary client: it would do the same against any other API server. They share one watch per kind
//! (`cache`), see their own writes at once, and work level-triggered on a queue of keys (`queue`), so that a lost
//! connection or a conflict costs a repetition and nothing else.
//!
//! | module | job |
//! |---|---|
//! | `start` | starts everything: [`Controllers`], [`Options`], [`run`] |
//! | `scheduler`, `placement` | pods get nodes; which nodes suit a pod |
//! | `deployment`, `replicaset`, `statefulset`, `daemonset`, `job` | workloads become pods |
//! | `revisions`, `hash`, `pods`, `owners` | what the workloads share: history, pods, adoption |
//! | `namespace`, `garbage` | what is deleted takes with it what it must |
//! | `kinds`, `inventory` | which kinds there are, and the metadata of all objects |
//! | `loadbalancer` | addresses for services of type LoadBalancer |
//! | `serviceaccount`, `nodes`, `endpoints`, `dns` | what every namespace has; node health; endpoints of services, their names |
//! | `cache`, `watch`, `objects`, `queue`, `patch`, `events`, `error` | watching, writing, retrying, telling |

mod cache;
mod daemonset;
mod deployment;
mod dns;
mod endpoints;
mod error;
mod events;
mod garbage;
mod hash;
mod inventory;
mod job;
mod kinds;
mod loadbalancer;
mod namespace;
mod nodes;
mod objects;
mod owners;
mod patch;
mod placement;
mod pods;
mod queue;
mod replicaset;
mod revisions;
mod scheduler;
mod serviceaccount;
mod start;
mod statefulset;
mod watch;

pub use endpoints::kubernetes::KubernetesService;
pub use error::Error;
pub use events::{Recorder, Severity, reference};
pub use loadbalancer::pool::Pool as LoadBalancerPool;
pub use start::{Controllers, Options, run};
