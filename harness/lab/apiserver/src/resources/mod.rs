//! Which kinds there are: a table of built-in ones, and those of established CustomResourceDefinitions.

mod builtin;
pub(crate) mod typed;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::crd::{CustomVersion, priority};
use crate::status::GroupResource;

/// A kind in one version, as clients see it.
pub(crate) struct Resource {
    /// API group, `""` for core.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Verbs,
    /// Subresources with the kind that they are read and written as.
    pub(crate) subresources: Vec<Subresource>,
    /// Shelf of the store that holds the objects, the same for all versions.
    pub(crate) storage: Arc<str>,
    /// Schema, columns and scale paths of a custom resource.
    pub(crate) custom: Option<Arc<CustomVersion>>,
}

/// A path below an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    /// Group, version and kind of what is exchanged; `None`: the parent's own.
    pub(crate) kind: Option<(&'static str, &'static str, &'static str)>,
    pub(crate) verbs: &'static [&'static str],
}

/// What may be done with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbs {
    /// Everything.
    All,
    /// Questions that are answered and not stored.
    Create,
}

impl Verbs {
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Self::Create => &["create"],
        }
    }
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    pub(crate) fn in_texts(&self) -> GroupResource<'_> {
        GroupResource { group: &self.group, resource: &self.plural }
    }

    /// `Pod`, `Deployment.apps`: as errors about invalid objects say it.
    pub(crate) fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|one| one.name == name)
    }

    /// Whether `status` can only be written through its subresource.
    pub(crate) fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
}

/// `v1`, `apps/v1`.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// The kinds that are served now.
pub(crate) struct Registry {
    builtin: Vec<Arc<Resource>>,
    custom: RwLock<Arc<Vec<Arc<Resource>>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { builtin: builtin::all().into_iter().map(Arc::new).collect(), custom: RwLock::default() }
    }
}

impl Registry {
    fn custom(&self) -> Arc<Vec<Arc<Resource>>> {
        self.custom.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All kinds in all versions; a group's preferred version comes first.
    pub(crate) fn all(&self) -> Vec<Arc<Resource>> {
        self.builtin.iter().chain(self.custom().iter()).cloned().collect()
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let fits = |one: &&Arc<Resource>| one.plural == plural && one.group == group && one.version == version;
        self.builtin.iter().find(fits).cloned().or_else(|| self.custom().iter().find(fits).cloned())
    }

    /// The kinds of one group and version.
    pub(crate) fn of(&self, group: &str, version: &str) -> Vec<Arc<Resource>> {
        self.all().into_iter().filter(|one| one.group == group && one.version == version).collect()
    }

    /// Groups with their versions, the preferred one first; core is `""`.
    pub(crate) fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for resource in self.all() {
            let versions = groups.entry(resource.group.clone()).or_default();
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
            }
        }
        // Definitions of one group come in any order, with versions of their own.
        groups.values_mut().for_each(|versions| versions.sort_by_cached_key(|version| Reverse(priority(version))));
        groups
    }

    /// Replaces the kinds that one CustomResourceDefinition gave, `storage` naming it.
    pub(crate) fn serve_custom(&self, storage: &str, resources: Vec<Resource>) {
        let mut custom = self.custom.write().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Resource>> = custom.iter().filter(|one| &*one.storage != storage).cloned().collect();
        next.extend(resources.into_iter().map(Arc::new));
        *custom = Arc::new(next);
    }

    /// Whether a group has built-in kinds.
    pub(crate) fn is_builtin_group(&self, group: &str) -> bool {
        self.builtin.iter().any(|one| one.group == group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_served_by_one_kind() {
        let registry = Registry::default();
        let mut paths: Vec<String> =
            registry.all().iter().map(|one| format!("{}/{}", one.api_version(), one.plural)).collect();
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
        assert!(registry.find("apps", "v1", "deployments").is_some());
        assert_eq!(registry.find("", "v1", "pods").unwrap().qualified_kind(), "Pod");
    }
}
