//! What can go wrong between the harness and a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::KubeconfigError;
use kube::core::Status;
use kube::runtime::watcher;
use udn_runner::cluster::Trouble;

/// What to do where a right is missing.
pub(crate) const REMEDY: &str = "grant that right; deploy/rbac.yaml has all that a run needs";

/// Every message says what was attempted, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig file is not there or cannot be read.
    #[error("cannot read kubeconfig {}: {source}; name another with --kubeconfig or KUBECONFIG", path.display())]
    KubeconfigFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no kubeconfig at all.
    #[error(
        "no kubeconfig: neither KUBECONFIG nor ~/.kube/config names one, and this is no pod; give one with --kubeconfig"
    )]
    NoKubeconfig,
    /// It does not have the context.
    #[error("kubeconfig has no context `{context}`; it has {known}")]
    Context {
        /// The context asked for.
        context: String,
        /// The names that it has.
        known: String,
    },
    /// It names no context, and neither did the user.
    #[error("kubeconfig has no current context; choose one with --context: it has {known}")]
    NoContext {
        /// The names that it has.
        known: String,
    },
    /// It cannot be used otherwise.
    #[error("kubeconfig{} cannot be used: {why}", path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default())]
    Kubeconfig {
        /// The file, where one was named.
        path: Option<PathBuf>,
        /// What is wrong with it, in one line.
        why: String,
    },
    /// Only a proxy leads to the API server, as the environment says.
    #[error(
        "HTTPS_PROXY or the kubeconfig leads to API server {address} by way of the proxy {proxy}, which udn-conformance does not \
         speak to; where the server can be reached without, unset HTTPS_PROXY or name the server in NO_PROXY"
    )]
    Proxy {
        /// The API server.
        address: String,
        /// The proxy.
        proxy: String,
    },
    /// The client cannot be made from it.
    #[error("cannot make a client for {address}: {source}")]
    Client {
        /// The API server.
        address: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Nobody answers at the API server's address.
    #[error("API server {address} cannot be reached: {why}; is the cluster up, and is this the right context?")]
    Unreachable {
        /// The API server.
        address: String,
        /// The innermost reason.
        why: String,
    },
    /// The API server does not accept the credentials.
    #[error("API server {address} does not accept the credentials of the kubeconfig (401 Unauthorized); log in again")]
    Unauthorized {
        /// The API server.
        address: String,
    },
    /// A request was refused or failed.
    #[error("cannot {attempted}: {why}")]
    Api {
        /// What was attempted, on what.
        attempted: String,
        /// What the API server says.
        why: String,
        /// HTTP status; 0 where there was no answer.
        code: u16,
    },
    /// The user may not do it.
    #[error("cannot {attempted}: {why}; {REMEDY}")]
    MissingRight {
        /// What was attempted, on what.
        attempted: String,
        /// What the API server says: who may not do what, where.
        why: String,
    },
    /// The API server does not serve a kind.
    #[error("the API server does not serve {kind} of {api_version}; is its CustomResourceDefinition installed?")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// A manifest cannot be sent.
    #[error("manifest of {object}: {problem}")]
    Manifest {
        /// Kind and name.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something did not come to be in time.
    #[error("waited {} s for {awaited}; {last}", after.as_secs())]
    Deadline {
        /// What was waited for.
        awaited: String,
        /// How long.
        after: Duration,
        /// What is known of it.
        last: String,
    },
    /// The cluster has no node for pods.
    #[error("the cluster has no schedulable Ready node")]
    NoNodes,
    /// A guest's image cannot be had on its node.
    #[error(
        "VM {vm} cannot be started: its node does not get image {image} ({why}); write it with `udn-conformance image --archive FILE` \
         and load it into the nodes (`kind load image-archive FILE`), or push it somewhere and name it with --guest-image"
    )]
    GuestImage {
        /// The VM.
        vm: String,
        /// The image.
        image: String,
        /// What the node says.
        why: String,
    },
    /// No agent answers on a VM's console.
    #[error("guest of VM {vm}: {why}; `virtctl console` shows what it says")]
    Guest {
        /// The VM.
        vm: String,
        /// Why.
        why: String,
    },
    /// A migration did not go as it must.
    #[error("migration of VM {vm}: {why}")]
    Migration {
        /// The VM.
        vm: String,
        /// Why.
        why: String,
    },
    /// No agent can be had in a pod.
    #[error("agent in {pod}: {source}")]
    Agent {
        /// Namespace and name.
        pod: String,
        /// Why.
        source: crate::agent::AgentError,
    },
    /// Clean-up left something behind.
    #[error("waited {} s for the clean-up; still there: {left}; look at their finalizers", after.as_secs())]
    LeftBehind {
        /// How long was waited.
        after: Duration,
        /// Kinds and names.
        left: String,
    },
}

impl Error {
    /// A kubeconfig that cannot be used: the first line of what the reader says, which may go on to quote the file.
    pub(crate) fn kubeconfig(path: Option<&Path>, error: &KubeconfigError) -> Self {
        let why = error.to_string();
        let cause = innermost(error);
        let why = if why.contains(&cause) { why } else { format!("{why}: {cause}") };
        let why = why.lines().next().unwrap_or_default().replace("error: ", "");
        Self::Kubeconfig { path: path.map(Path::to_path_buf), why }
    }

    /// A failed request.
    pub(crate) fn api(attempted: impl Into<String>, error: kube::Error) -> Self {
        let attempted = attempted.into();
        match error {
            kube::Error::Api(status) if is_missing_right(&status) => {
                Self::MissingRight { attempted, why: status.message.clone() }
            }
            kube::Error::Api(status) => Self::Api { attempted, why: status.message.clone(), code: status.code },
            other => Self::Api { attempted, why: innermost(&other), code: 0 },
        }
    }

    /// Whether the API server understood the request and said no.
    pub(crate) const fn refusal(&self) -> Option<&String> {
        match self {
            Self::Api { why, code: 400..=499, .. } => Some(why),
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub(crate) const fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { code: 404, .. })
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}

/// Whether an API server refused a request because of who asked, not of what was asked for: an admission plugin refuses with
/// the same code.
pub(crate) fn is_missing_right(status: &Status) -> bool {
    status.code == 403 && status.message.contains("User \"") && status.message.contains("\" cannot ")
}

/// The right that somebody who watches lacks, as the API server says it.
pub(crate) fn right_to_watch(error: &watcher::Error) -> Option<&str> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchError(status) => status,
        _ => return None,
    };
    is_missing_right(status).then_some(status.message.as_str())
}

/// The message of the innermost cause: outer ones of HTTP clients say little more than "error".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> Error {
        Error::api("create X", kube::Error::Api(Box::new(Status::failure(message, "Forbidden").with_code(403))))
    }

    /// Else whoever may create nothing would find that everything is refused at admission, as it should be.
    #[test]
    fn a_missing_right_is_no_refusal_of_what_was_asked_for() {
        let admission = "x \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
        assert_eq!(refused(admission).refusal().map(String::as_str), Some(admission));
        let right = "x.io \"a\" is forbidden: User \"system:serviceaccount:n:s\" cannot create resource \"x\" in API group \"x.io\" at the cluster scope";
        let missing = refused(right);
        assert_eq!(missing.refusal(), None);
        assert_eq!(missing.to_string(), format!("cannot create X: {right}; {REMEDY}"));
    }
}
