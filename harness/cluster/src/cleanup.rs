//! Removes what runs made, and finds what earlier ones left behind. Everything carries its run's label.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::discovery::{Discovery, Scope, verbs};

use crate::error::Error;
use crate::names::{RUN_LABEL, selector};
use crate::objects::{Objects, Real};

/// How long everything may take to be gone.
const DEADLINE: Duration = Duration::from_secs(150);
/// Cluster-scoped kinds that a run makes: looked for after every run, without asking for every kind that is served.
const OWN_KINDS: [(&str, &str); 4] = [
    ("v1", "Namespace"),
    ("k8s.ovn.org/v1", "ClusterUserDefinedNetwork"),
    ("k8s.ovn.org/v1", "VTEP"),
    ("k8s.ovn.org/v1", "ClusterNetworkConnect"),
];
/// Groups whose objects cannot carry a label of ours, or are not to be listed.
const SKIPPED_GROUPS: [&str; 3] = ["metrics.k8s.io", "authentication.k8s.io", "authorization.k8s.io"];

/// What a clean-up did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Runs of which something was found.
    pub runs: BTreeSet<String>,
    /// What was removed: kind and name.
    pub removed: Vec<String>,
}

/// Deletes these and waits until they are gone, with everything in the namespaces among them.
pub(crate) async fn remove(objects: &Objects, roots: Vec<Real>) -> Result<(), Error> {
    let refused: Vec<Error> =
        join_all(roots.iter().map(|root| objects.delete(root))).await.into_iter().filter_map(Result::err).collect();
    // A kind that is not served has no objects.
    if let Some(error) =
        refused.into_iter().find(|error| !matches!(error, Error::UnknownKind { .. }) && !error.is_not_found())
    {
        return Err(error);
    }
    let waited = join_all(roots.iter().map(async |root| (root, objects.wait_gone(root, DEADLINE).await))).await;
    let mut left = Vec::new();
    for (root, gone) in waited {
        match gone {
            Ok(()) | Err(Error::UnknownKind { .. }) => {}
            Err(Error::Deadline { last, .. }) => left.push(format!("{root} ({last})")),
            Err(other) => return Err(other),
        }
    }
    if left.is_empty() { Ok(()) } else { Err(Error::LeftBehind { after: DEADLINE, left: left.join(", ") }) }
}

/// Removes what is left of one run among the kinds that runs make.
pub(crate) async fn sweep(objects: &Objects, run: &str) -> Result<(), Error> {
    let mut roots = Vec::new();
    for (api_version, kind) in OWN_KINDS {
        match objects.list(api_version, kind, None, Some(&selector(run, None))).await {
            Ok(found) => roots.extend(found.iter().map(|object| real(api_version, kind, object))),
            Err(Error::UnknownKind { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    remove(objects, roots).await
}

/// Removes cluster-scoped objects of every kind, namespaces first of all, that carry the label of one run or of any.
pub(crate) async fn by_label(objects: &Objects, run: Option<&str>) -> Result<Cleaned, Error> {
    let label = run.map_or_else(|| RUN_LABEL.to_owned(), |run| selector(run, None));
    let mut cleaned = Cleaned::default();
    let mut roots = Vec::new();
    for (api_version, kind) in cluster_scoped(objects).await? {
        let found = match objects.list(&api_version, &kind, None, Some(&label)).await {
            Ok(found) => found,
            // What may not be listed cannot have been made by us either.
            Err(Error::UnknownKind { .. } | Error::MissingRight { .. } | Error::Api { code: 403..=405, .. }) => {
                continue;
            }
            Err(other) => return Err(other),
        };
        for object in found {
            cleaned.runs.extend(object.labels().get(RUN_LABEL).cloned());
            let root = real(&api_version, &kind, &object);
            cleaned.removed.push(root.to_string());
            roots.push(root);
        }
    }
    remove(objects, roots).await?;
    Ok(cleaned)
}

async fn cluster_scoped(objects: &Objects) -> Result<Vec<(String, String)>, Error> {
    let discovery = Discovery::new(objects.client.clone()).exclude(&SKIPPED_GROUPS).run().await;
    let discovery = discovery.map_err(|error| Error::api("ask which kinds are served", error))?;
    let mut kinds: Vec<(String, String)> = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let usable = capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::DELETE);
            if capabilities.scope == Scope::Cluster && usable {
                kinds.push((resource.api_version.clone(), resource.kind.clone()));
            }
        }
    }
    kinds.sort_by_key(|(_, kind)| kind != "Namespace");
    Ok(kinds)
}

fn real(api_version: &str, kind: &str, object: &DynamicObject) -> Real {
    Real { api_version: api_version.into(), kind: kind.into(), namespace: object.namespace(), name: object.name_any() }
}
