//! Label selectors, as Kubernetes evaluates them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether `selector` selects an object with these labels. An empty selector selects all; a requirement with an operator
/// that is not known selects nothing: it must not open more than was asked for.
pub(crate) fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    exact && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|value| requirement.values.iter().flatten().any(|listed| listed == value));
    match requirement.operator.as_str() {
        "In" => listed(),
        // An object without the label is selected, too.
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(selector: serde_json::Value, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        matches(&serde_json::from_value(selector).unwrap(), &labels)
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        assert!(selects(json!({}), &[]));
        assert!(selects(json!({"matchLabels": {"a": "1"}}), &[("a", "1"), ("b", "2")]));
        assert!(!selects(json!({"matchLabels": {"a": "1", "b": "2"}}), &[("a", "1")]));
        let both = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]});
        assert!(selects(both.clone(), &[("a", "1"), ("b", "")]));
        assert!(!selects(both, &[("a", "1")]));
    }

    #[test]
    fn operators_are_those_of_kubernetes() {
        let one =
            |operator: &str| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": ["1", "2"]}]});
        assert!(selects(one("In"), &[("a", "2")]));
        assert!(!selects(one("In"), &[("a", "3")]));
        assert!(!selects(one("In"), &[]));
        assert!(selects(one("NotIn"), &[("a", "3")]));
        assert!(selects(one("NotIn"), &[]));
        assert!(!selects(one("NotIn"), &[("a", "1")]));
        assert!(selects(one("DoesNotExist"), &[("b", "1")]));
        assert!(!selects(one("DoesNotExist"), &[("a", "1")]));
        assert!(!selects(one("Near"), &[("a", "1")]));
    }
}
