//! Whether a node suits a pod by labels and taints: what the scheduler and the daemon set controller share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt;

/// Whether the pod's node selector and required node affinity accept the node.
pub(crate) fn affinity_accepts(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let selected = spec.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selector_accepts(selector, node))
}

/// Any term suffices.
pub(crate) fn selector_accepts(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_accepts(term, node))
}

/// All requirements of a term must hold; a term without any accepts nothing.
pub(crate) fn term_accepts(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let names: BTreeMap<String, String> = [("metadata.name".to_owned(), node.name_any())].into();
    expressions.iter().all(|requirement| holds(requirement, node.labels()))
        && fields.iter().all(|requirement| holds(requirement, &names))
}

fn holds(requirement: &NodeSelectorRequirement, on: &BTreeMap<String, String>) -> bool {
    let value = on.get(&requirement.key);
    let listed = requirement.values.as_deref().unwrap_or_default();
    let compare = |test: fn(&i64, &i64) -> bool| {
        let bound = listed.first().and_then(|text| text.parse().ok());
        value.and_then(|text| text.parse().ok()).zip(bound).is_some_and(|(value, bound)| test(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| listed.contains(value)),
        "NotIn" => value.is_none_or(|value| !listed.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

/// The first taint of one of these effects that no toleration covers.
pub(crate) fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// The taints of a node. One that is cordoned has that taint even before a controller wrote it.
pub(crate) fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let mut taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
    if cordoned && !taints.iter().any(|taint| taint.key == UNSCHEDULABLE) {
        taints.push(taint(UNSCHEDULABLE, "NoSchedule"));
    }
    taints
}

/// Taint of a cordoned node.
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeSpec;

    /// A node with labels `name=value` (and its host name) for tests.
    pub(crate) fn node(name: &str, labels: &[(&str, &str)], taints: &[Taint]) -> Node {
        let mut node =
            Node { spec: Some(NodeSpec { taints: Some(taints.to_vec()), ..NodeSpec::default() }), ..Node::default() };
        node.metadata.name = Some(name.into());
        node.labels_mut().insert("kubernetes.io/hostname".into(), name.into());
        for (key, value) in labels {
            node.labels_mut().insert((*key).into(), (*value).into());
        }
        node
    }

    pub(crate) fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        }
    }

    #[test]
    fn requirements_by_operator() {
        let node = node("n1", &[("zone", "a"), ("cores", "8")], &[]);
        for (operator, values, expected) in [
            ("In", &["a", "b"][..], true),
            ("In", &["b"], false),
            ("NotIn", &["a"], false),
            ("NotIn", &["b"], true),
            ("Exists", &[], true),
            ("DoesNotExist", &[], false),
        ] {
            assert_eq!(holds(&requirement("zone", operator, values), node.labels()), expected, "{operator} {values:?}");
        }
        assert!(holds(&requirement("cores", "Gt", &["7"]), node.labels()));
        assert!(!holds(&requirement("cores", "Lt", &["8"]), node.labels()));
        let by_name = NodeSelectorTerm {
            match_fields: Some(vec![requirement("metadata.name", "In", &["n1"])]),
            ..NodeSelectorTerm::default()
        };
        assert!(term_accepts(&by_name, &node));
        assert!(!term_accepts(&NodeSelectorTerm::default(), &node), "an empty term accepts nothing");
    }

    #[test]
    fn tolerations_cover_by_key_value_and_effect() {
        let control_plane = taint("node-role.kubernetes.io/control-plane", "NoSchedule");
        let taints = [control_plane.clone()];
        assert_eq!(untolerated(&taints, &[], &["NoSchedule"]), Some(&control_plane));
        assert_eq!(untolerated(&taints, &[], &["NoExecute"]), None);
        let exists = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
        assert!(tolerates(&exists, &control_plane), "tolerates everything");
        let equal = Toleration { key: Some(control_plane.key.clone()), ..Toleration::default() };
        assert!(tolerates(&equal, &control_plane));
        let valued = Toleration { value: Some("x".into()), ..equal.clone() };
        assert!(!tolerates(&valued, &control_plane));
        let other = Toleration { effect: Some("NoExecute".into()), ..equal };
        assert!(!tolerates(&other, &control_plane));
    }

    #[test]
    fn a_cordoned_node_is_tainted() {
        let mut cordoned = node("n", &[], &[]);
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        assert_eq!(taints(&cordoned)[0].key, UNSCHEDULABLE);
    }
}
