//! Names of a world and names of a run. A world says `blue`; two runs at once need two namespaces: every namespace and
//! every cluster-scoped object gets the run's prefix, and every reference to one with it. (A prefix, not a suffix: names that
//! end alike on purpose, as those of `isolation/name-collision`, still do.)

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::world::{DEFAULT_NETWORK_ANNOTATION, NETWORKS_ANNOTATION};

/// Kinds that have no namespace, of those that fixtures use.
const CLUSTER_SCOPED: [&str; 4] = ["Namespace", "ClusterUserDefinedNetwork", "VTEP", "ClusterNetworkConnect"];
/// The label that every namespace carries with its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Namespaces that belong to the cluster, not to a world: never renamed.
const CLUSTERS_OWN: [&str; 3] = ["default", "kube-system", "ovn-kubernetes"];

/// How names of a world become names of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    prefix: String,
    cluster_networks: BTreeSet<String>,
}

impl Naming {
    /// Puts `<prefix>-` before names; it has to begin with a letter. An empty prefix leaves names as they are.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), cluster_networks: BTreeSet::new() }
    }

    /// Learns which attachment names are names of ClusterUserDefinedNetworks: those are renamed, names of
    /// UserDefinedNetworks are not.
    #[must_use]
    pub fn knowing(mut self, manifests: &[Value]) -> Self {
        let cluster = manifests.iter().filter(|manifest| manifest["kind"] == "ClusterUserDefinedNetwork");
        self.cluster_networks
            .extend(cluster.filter_map(|manifest| Some(manifest["metadata"]["name"].as_str()?.to_owned())));
        self
    }

    /// The run's name of a NetworkAttachmentDefinition.
    #[must_use]
    pub fn attachment(&self, name: &str) -> String {
        if self.cluster_networks.contains(name) { self.real(name) } else { name.to_owned() }
    }

    /// The run's name of a namespace or cluster-scoped object.
    #[must_use]
    pub fn real(&self, name: &str) -> String {
        if self.prefix.is_empty() || CLUSTERS_OWN.contains(&name) {
            name.to_owned()
        } else {
            format!("{}-{name}", self.prefix)
        }
    }

    /// The world's name of a namespace or cluster-scoped object of the run; `None` where it is not of this run.
    #[must_use]
    pub fn world<'a>(&self, real: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() || CLUSTERS_OWN.contains(&real) {
            return Some(real);
        }
        real.strip_prefix(self.prefix.as_str())?.strip_prefix('-')
    }

    /// Replaces every `{name}` by its real name.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((name, after)) = behind.split_once('}') else {
                break;
            };
            out.push_str(before);
            out.push_str(&self.real(name));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// A manifest with the run's names: its own, its namespace, namespace selectors by name, network selections.
    #[must_use]
    pub fn manifest(&self, manifest: &Value) -> Value {
        let mut renamed = manifest.clone();
        let cluster_scoped = manifest["kind"].as_str().is_some_and(|kind| CLUSTER_SCOPED.contains(&kind));
        if let Some(metadata) = renamed.get_mut("metadata").and_then(Value::as_object_mut) {
            if cluster_scoped {
                self.rename(metadata, "name");
            }
            self.rename(metadata, "namespace");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                self.selections(annotations);
            }
        }
        if let Some(annotations) =
            renamed.pointer_mut("/spec/template/metadata/annotations").and_then(Value::as_object_mut)
        {
            self.selections(annotations);
        }
        self.selectors(&mut renamed);
        renamed
    }

    fn rename(&self, object: &mut Map<String, Value>, key: &str) {
        if let Some(Value::String(name)) = object.get_mut(key) {
            *name = self.real(name);
        }
    }

    /// `ns/name`, bare names and elements in network selection annotations.
    fn selections(&self, annotations: &mut Map<String, Value>) {
        for key in [NETWORKS_ANNOTATION, DEFAULT_NETWORK_ANNOTATION] {
            let Some(Value::String(text)) = annotations.get_mut(key) else {
                continue;
            };
            if let Ok(Value::Array(mut elements)) = serde_json::from_str::<Value>(text) {
                for element in elements.iter_mut().filter_map(Value::as_object_mut) {
                    self.rename(element, "namespace");
                    if let Some(Value::String(name)) = element.get_mut("name") {
                        *name = self.attachment(name);
                    }
                }
                *text = Value::Array(elements).to_string();
                continue;
            }
            let renamed: Vec<String> = text
                .split(',')
                .map(|name| match name.trim().split_once('/') {
                    Some((namespace, name)) => {
                        format!("{}/{}", self.real(namespace), self.attachment(name))
                    }
                    None => self.attachment(name.trim()),
                })
                .collect();
            *text = renamed.join(",");
        }
    }

    /// Values of the name label in every label selector, wherever it stands.
    fn selectors(&self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::Object(labels)) = object.get_mut("matchLabels") {
                    self.rename(labels, NAME_LABEL);
                }
                if object.get("key").and_then(Value::as_str) == Some(NAME_LABEL) {
                    for name in object.get_mut("values").and_then(Value::as_array_mut).into_iter().flatten() {
                        if let Value::String(name) = name {
                            *name = self.real(name);
                        }
                    }
                }
                object.values_mut().for_each(|inner| self.selectors(inner));
            }
            Value::Array(items) => items.iter_mut().for_each(|inner| self.selectors(inner)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_names_a_namespace_is_renamed() {
        let naming = Naming::new("x1");
        let cudn = json!({ "kind": "ClusterUserDefinedNetwork", "metadata": { "name": "colored" }, "spec": {
            "namespaceSelector": { "matchExpressions": [{ "key": NAME_LABEL, "operator": "In", "values": ["red", "yellow"] }] },
            "network": { "topology": "Layer2" } } });
        let renamed = naming.manifest(&cudn);
        assert_eq!(renamed["metadata"]["name"], "x1-colored");
        assert_eq!(
            renamed["spec"]["namespaceSelector"]["matchExpressions"][0]["values"],
            json!(["x1-red", "x1-yellow"])
        );
        let pod = json!({ "kind": "Pod", "metadata": { "name": "a", "namespace": "blue",
            "annotations": { NETWORKS_ANNOTATION: "second, red/third" } } });
        let renamed = naming.manifest(&pod);
        assert_eq!(renamed["metadata"]["name"], "a");
        assert_eq!(renamed["metadata"]["namespace"], "x1-blue");
        assert_eq!(renamed["metadata"]["annotations"][NETWORKS_ANNOTATION], "second,x1-red/third");
    }

    #[test]
    fn real_and_world_are_inverse() {
        let naming = Naming::new("x1");
        assert_eq!(naming.world(&naming.real("blue")), Some("blue"));
        assert_eq!(naming.world("y2-blue"), None);
        assert_eq!(naming.real("kube-system"), "kube-system");
    }

    #[test]
    fn braces_expand_and_stray_ones_stay() {
        let naming = Naming::new("x1");
        assert_eq!(naming.expand("in [{blue}/net] of {red}"), "in [x1-blue/net] of x1-red");
        assert_eq!(naming.expand("a {b"), "a {b");
    }
}
