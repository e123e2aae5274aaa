//! Who may do what: the roles and bindings in the store, as Kubernetes' RBAC authorizer reads them.
//!
//! | module | job |
//! |---|---|
//! | `attributes` | what a request, or a review, asks to do |
//! | `roles` | what bindings grant a user |
//!
//! Every question of a request is told to the tracing target [`AUDIT`] at level debug, a JSON object a line. Writing roles is
//! a right like others here: nobody is kept from granting more than he has (`escalate`, `bind`).

mod attributes;
mod roles;

use std::sync::Arc;

use serde_json::json;
use tracing::debug;

use crate::identity::User;
use crate::server::Cluster;
use crate::status::Rejection;

pub(crate) use attributes::Attributes;
pub(crate) use roles::granted;

/// The tracing target that says who asked for what.
pub const AUDIT: &str = "udn_lab_apiserver::audit";

/// Who sent a request, and what it asks to do.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: User,
    pub(crate) attributes: Attributes,
}

impl Caller {
    /// Refuses what the user may not do.
    pub(crate) fn check(self: &Arc<Self>, cluster: &Cluster) -> Result<(), Rejection> {
        self.demand(cluster, &self.attributes)?;
        // Kubernetes 1.35 and later want `create` as well of those who open a WebSocket, which is a GET; here, too, so that a
        // role that works here works there.
        match self.attributes.as_creation_of_stream() {
            Some(creation) => self.demand(cluster, &creation),
            None => Ok(()),
        }
    }

    /// Refuses an apply that would create an object to those who may not create it.
    pub(crate) fn check_creation(&self, cluster: &Cluster) -> Result<(), Rejection> {
        self.demand(cluster, &self.attributes.clone().with_verb("create"))
    }

    fn demand(&self, cluster: &Cluster, attributes: &Attributes) -> Result<(), Rejection> {
        let allowed = allowed(cluster, &self.user, attributes).is_some();
        debug!(target: AUDIT, "{}", json!({"user": self.user.name, "allowed": allowed, "asked": attributes}));
        if allowed { Ok(()) } else { Err(attributes.refusal(&self.user)) }
    }
}

/// Why a user may do something; `None` where nothing says so.
pub(crate) fn allowed(cluster: &Cluster, user: &User, attributes: &Attributes) -> Option<String> {
    if user.may_everything() {
        return Some(String::new());
    }
    let mut grants = granted(cluster, user, attributes.namespace());
    grants.find(|grant| attributes.granted_by(&grant.rule, grant.everywhere)).map(|grant| grant.reason)
}
