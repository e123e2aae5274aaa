//! Printer columns, and the JSONPath that they are found by.

use serde_json::Value;

use crate::json::{int, text};

/// A column of a custom resource's table.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    /// 0: always shown; more: only in wide tables.
    pub(crate) priority: i64,
    pub(crate) path: JsonPath,
}

impl Column {
    /// The columns after the name; only the age when a definition names none.
    pub(super) fn all(given: &[Value]) -> Vec<Self> {
        if given.is_empty() {
            return vec![Self {
                name: "Age".into(),
                kind: "date".into(),
                format: String::new(),
                description: "CreationTimestamp is when the server created this object.".into(),
                priority: 0,
                path: JsonPath::parse(".metadata.creationTimestamp"),
            }];
        }
        let column = |column: &Value| Self {
            name: text(column, &["name"]).into(),
            kind: text(column, &["type"]).into(),
            format: text(column, &["format"]).into(),
            description: text(column, &["description"]).into(),
            priority: int(column, &["priority"]).unwrap_or(0),
            path: JsonPath::parse(text(column, &["jsonPath"])),
        };
        given.iter().map(column).collect()
    }
}

/// A JSONPath as Kubernetes uses it: fields, indices, wildcards and filters by equality.
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.field=="value")]`
    Where(Vec<String>, Value, bool),
}

impl JsonPath {
    /// Reads a path. What cannot be understood finds nothing.
    pub(crate) fn parse(path: &str) -> Self {
        let path = path.trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        let mut steps = Vec::new();
        let mut rest = path;
        while let Some(first) = rest.chars().next() {
            if first == '.' {
                rest = &rest[1..];
                continue;
            }
            if first == '[' {
                let Some(end) = closing(rest) else { break };
                steps.push(bracket(&rest[1..end]));
                rest = &rest[end + 1..];
                continue;
            }
            let mut name = String::new();
            let mut used = 0;
            let mut escaped = false;
            for c in rest.chars() {
                if !escaped && matches!(c, '.' | '[') {
                    break;
                }
                used += c.len_utf8();
                escaped = c == '\\' && !escaped;
                if !escaped {
                    name.push(c);
                }
            }
            rest = &rest[used..];
            steps.push(if name == "*" { Step::All } else { Step::Field(name) });
        }
        Self(steps)
    }

    /// All values at the path.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.of(value)).collect();
        }
        found
    }
}

/// Position of the bracket that closes the one at the beginning; quotes hide brackets.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Step {
    let inside = inside.trim();
    if inside == "*" {
        return Step::All;
    }
    if let Ok(index) = inside.parse() {
        return Step::Index(index);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (left, right, equal) = match (filter.split_once("=="), filter.split_once("!=")) {
            (Some((left, right)), _) => (left, right, true),
            (_, Some((left, right))) => (left, right, false),
            _ => return Step::Field(inside.to_owned()),
        };
        let fields = left.trim().trim_start_matches('@').split('.').filter(|part| !part.is_empty());
        let right = right.trim();
        let quoted = right.trim_matches(['\'', '"']);
        let value = if quoted.len() == right.len() {
            serde_json::from_str(right).unwrap_or_else(|_| right.into())
        } else {
            quoted.into()
        };
        return Step::Where(fields.map(ToOwned::to_owned).collect(), value, equal);
    }
    Step::Field(inside.trim_matches(['\'', '"']).to_owned())
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), value) => value.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(items)) => {
                let at = if *at < 0 {
                    items.len().checked_sub(at.unsigned_abs() as usize)
                } else {
                    usize::try_from(*at).ok()
                };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Where(fields, wanted, equal), Value::Array(items)) => {
                let keeps = |item: &&Value| {
                    let mut at = *item;
                    for field in fields {
                        at = at.get(field).unwrap_or(&Value::Null);
                    }
                    (at == wanted) == *equal
                };
                items.iter().filter(keeps).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}], "n": [1, 2]},
        });
        let find = |path: &str| JsonPath::parse(path).find(&object).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(find(".status.conditions[?(@.type==\"Ready\")].status"), [json!("True")]);
        assert_eq!(find("{.status.conditions[?(@.type!='Ready')].status}"), [json!("False")]);
        assert_eq!(find(".status.n[*]"), [json!(1), json!(2)]);
        assert_eq!(find(".status.n[-1]"), [json!(2)]);
        assert_eq!(find(".metadata.annotations.a\\.b/c"), [json!("x")]);
        assert_eq!(find(".metadata.annotations['a.b/c']"), [json!("x")]);
        assert!(find(".nothing.at[3]").is_empty());
    }
}
