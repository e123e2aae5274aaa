//! Label selectors, as Kubernetes defines them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::string_map;

/// A label selector: every requirement must hold; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads `matchLabels` and `matchExpressions`.
    ///
    /// # Errors
    /// An operator that Kubernetes does not have.
    pub(super) fn read(selector: &Value) -> Result<Self, String> {
        let exact = string_map(&selector["matchLabels"]);
        let mut all: Vec<Requirement> = exact
            .into_iter()
            .map(|(key, value)| Requirement { key, operator: Operator::In, values: vec![value] })
            .collect();
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str() {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                Some("DoesNotExist") => Operator::DoesNotExist,
                other => {
                    let other = other.unwrap_or("missing");
                    return Err(format!("selector operator {other} is not In, NotIn, Exists or DoesNotExist"));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten();
            all.push(Requirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                operator,
                values: values.filter_map(Value::as_str).map(str::to_owned).collect(),
            });
        }
        Ok(Self(all))
    }

    /// Whether it selects an object with these labels.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let among = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => among,
                Operator::NotIn => !among,
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::everything(json!({}), true)]
    #[case::exact(json!({ "matchLabels": { "app": "a" } }), true)]
    #[case::another(json!({ "matchLabels": { "app": "b" } }), false)]
    #[case::among(json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["a", "b"] }] }), true)]
    #[case::not_among(json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["a"] }] }), false)]
    #[case::absent_is_not_among(json!({ "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["a"] }] }), true)]
    #[case::exists(json!({ "matchExpressions": [{ "key": "app", "operator": "Exists" }] }), true)]
    #[case::absent(json!({ "matchExpressions": [{ "key": "app", "operator": "DoesNotExist" }] }), false)]
    #[case::both(json!({ "matchLabels": { "app": "a" }, "matchExpressions": [{ "key": "tier", "operator": "Exists" }] }), false)]
    fn as_kubernetes(#[case] selector: Value, #[case] selected: bool) {
        let labels = [("app".to_owned(), "a".to_owned())].into();
        assert_eq!(Selector::read(&selector).unwrap().selects(&labels), selected);
    }
}
