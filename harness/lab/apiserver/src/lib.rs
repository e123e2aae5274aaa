//! A small Kubernetes API server in memory: what `kube` and `kubectl` need of one, and no controllers.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | what it is given: certificate, token, way to the kubelets |
//! | [`server`] | listeners, TLS, authentication, dispatch |
//! | `identity`, [`authorization`] | whose token it is; what roles and bindings let its holder do |
//! | `request`, `respond`, `status` | paths and options in; objects, tables and `Status` out |
//! | `store` | objects by kind, one counter of versions, a log per kind that watches read |
//! | `resources` | which kinds there are, built in or from CustomResourceDefinitions |
//! | `discovery`, `openapi` | what clients ask to learn that |
//! | `handlers` | the verbs |
//! | `write` | the way of a write: defaults, validation, admission, commit |
//! | `protobuf` | bodies that Go clients do not send as JSON |
//! | `patch`, `fields` | JSON, merge and strategic patches; server-side apply and who owns which field |
//! | `defaults`, `validate`, `services` | what Kubernetes adds to, and refuses in, built-in kinds |
//! | `crd` | structural schemas: prune, default, validate, CEL |
//! | `admission` | ValidatingAdmissionPolicies |
//! | `table` | the columns that `kubectl get` prints |
//! | `proxy` | exec, attach, port-forward and logs through a node's kubelet |
//! | [`aggregation`](ApiServer::aggregate) | groups that somebody else serves behind this server |
//! | [`testing`] | a server for tests, with its own certificate and kubeconfig |
//!
//! The kubeconfig's token may do everything; tokens of service accounts what roles and bindings say.

pub mod authorization;
pub mod config;
pub mod server;
pub mod testing;

mod admission;
mod aggregation;
mod crd;
mod defaults;
mod discovery;
mod fields;
mod handlers;
mod identity;
mod json;
mod openapi;
mod patch;
mod protobuf;
mod proxy;
mod request;
mod resources;
mod respond;
mod selectors;
mod services;
mod status;
mod store;
mod table;
mod validate;
mod write;

pub use config::{Config, KubeletDialer};
pub use server::ApiServer;
