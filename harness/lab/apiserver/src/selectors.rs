//! Label selectors and field selectors.

use serde_json::{Map, Value};

use crate::json::{at, text};
use crate::resources::Resource;
use crate::status::Rejection;

/// Which objects a list, watch or collection deletion is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

#[derive(Clone, Debug, PartialEq)]
struct FieldRequirement {
    path: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads the two options of a request.
    pub(crate) fn parse(resource: &Resource, labels: Option<&str>, fields: Option<&str>) -> Result<Self, Rejection> {
        let labels = match labels {
            Some(text) => parse_labels(text).map_err(|why| {
                Rejection::bad_request(format!("unable to parse requirement: {why} in label selector {text:?}"))
            })?,
            None => Vec::new(),
        };
        let fields = match fields {
            Some(text) => parse_fields(text)
                .ok_or_else(|| Rejection::bad_request(format!("invalid selector: {text:?}; can't understand it")))?,
            None => Vec::new(),
        };
        for field in &fields {
            if !supported(resource, &field.path) {
                return Err(Rejection::bad_request(format!("field label not supported: {}", field.path)));
            }
        }
        Ok(Self { labels, fields })
    }

    /// From a `LabelSelector` object; `None` selects nothing.
    pub(crate) fn of_object(selector: Option<&Value>) -> Option<Self> {
        let selector = selector?;
        let mut labels = Vec::new();
        if let Some(wanted) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in wanted {
                labels.push(Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().into()]));
            }
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = text(expression, &["key"]).to_owned();
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
            labels.push(match text(expression, &["operator"]) {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                _ => Requirement::Missing(key),
            });
        }
        Some(Self { labels, fields: Vec::new() })
    }

    /// Whether every object is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = at(object, &["metadata", "labels"]).and_then(Value::as_object);
        self.labels.iter().all(|one| one.matches(labels)) && self.fields.iter().all(|one| one.matches(object))
    }
}

impl Requirement {
    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let get = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        match self {
            Self::Exists(key) => get(key).is_some(),
            Self::Missing(key) => get(key).is_none(),
            Self::In(key, values) => get(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(key, values) => !get(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Self::Greater(key, than) => get(key).and_then(|value| value.parse().ok()).is_some_and(|n: i64| n > *than),
            Self::Less(key, than) => get(key).and_then(|value| value.parse().ok()).is_some_and(|n: i64| n < *than),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let path = STORED_NAMES.iter().find(|(shown, _)| self.path.starts_with(shown));
        let path = match path {
            Some((shown, stored)) => self.path.replacen(shown, stored, 1),
            None => self.path.clone(),
        };
        let mut value = object;
        for key in path.split('.') {
            value = value.get(key).unwrap_or(&Value::Null);
        }
        let found = match value {
            Value::String(text) => text.clone(),
            Value::Null => default_of(&self.path).to_owned(),
            other => other.to_string(),
        };
        (found == self.value) == self.equal
    }
}

/// What a field that is absent counts as.
fn default_of(path: &str) -> &'static str {
    if matches!(path, "spec.unschedulable" | "spec.hostNetwork") { "false" } else { "" }
}

/// Fields that the stored form calls otherwise.
const STORED_NAMES: &[(&str, &str)] = &[("regarding", "involvedObject"), ("reportingController", "reportingComponent")];

/// Which fields a kind can be selected by, beside name and namespace.
fn supported(resource: &Resource, path: &str) -> bool {
    if path == "metadata.name" || (path == "metadata.namespace" && resource.namespaced) {
        return true;
    }
    if let Some(custom) = &resource.custom {
        return custom.selectable.iter().any(|one| one == path);
    }
    let known: &[&str] = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "events") | ("events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        _ => &[],
    };
    known.contains(&path)
}

fn parse_fields(text: &str) -> Option<Vec<FieldRequirement>> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => terms.push(String::new()),
            _ => {
                if let Some(last) = terms.last_mut() {
                    last.push(c);
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    let mut found = Vec::new();
    for term in terms.iter().filter(|term| !term.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = term.split_once("==") {
            (path, value, true)
        } else {
            let (path, value) = term.split_once('=')?;
            (path, value, true)
        };
        let mut plain = String::new();
        let mut chars = value.chars();
        while let Some(c) = chars.next() {
            plain.push(if c == '\\' { chars.next()? } else { c });
        }
        found.push(FieldRequirement { path: path.into(), value: plain, equal });
    }
    Some(found)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    const SIGNS: [&str; 9] = ["!=", "==", "=", "!", ",", "(", ")", ">", "<"];
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            if !word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) {
                return Err(format!("{word:?} is no label key or value"));
            }
            found.push(Token::Word(word.to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let tokens = tokens(text)?;
    let mut tokens = tokens.iter().peekable();
    let mut found = Vec::new();
    while tokens.peek().is_some() {
        found.push(requirement(&mut tokens)?);
        match tokens.next() {
            None => {}
            Some(Token::Sign(",")) => {}
            Some(other) => return Err(format!("found {other:?}, expected: ',' or 'end of string'")),
        }
    }
    Ok(found)
}

fn requirement<'a>(tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a Token>>) -> Result<Requirement, String> {
    let key = match tokens.next() {
        Some(Token::Sign("!")) => match tokens.next() {
            Some(Token::Word(key)) => return Ok(Requirement::Missing(key.clone())),
            other => return Err(format!("found {other:?}, expected: a label key")),
        },
        Some(Token::Word(key)) => key.clone(),
        other => return Err(format!("found {other:?}, expected: !, identifier, or ','")),
    };
    let operator = match tokens.peek() {
        None | Some(Token::Sign(",")) => return Ok(Requirement::Exists(key)),
        Some(other) => (*other).clone(),
    };
    tokens.next();
    let mut word = || match tokens.peek() {
        Some(Token::Word(value)) => {
            let value = value.clone();
            tokens.next();
            value
        }
        _ => String::new(),
    };
    let number = |text: String| text.parse().map_err(|_| format!("{text:?} is no integer"));
    match operator {
        Token::Sign("=" | "==") => Ok(Requirement::In(key, vec![word()])),
        Token::Sign("!=") => Ok(Requirement::NotIn(key, vec![word()])),
        Token::Sign(">") => Ok(Requirement::Greater(key, number(word())?)),
        Token::Sign("<") => Ok(Requirement::Less(key, number(word())?)),
        Token::Word(set) if set == "in" || set == "notin" => {
            let values = values(tokens)?;
            Ok(if set == "in" { Requirement::In(key, values) } else { Requirement::NotIn(key, values) })
        }
        other => Err(format!("found {other:?}, expected: in, notin, =, ==, !=, gt, lt")),
    }
}

fn values<'a>(tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a Token>>) -> Result<Vec<String>, String> {
    if tokens.next() != Some(&Token::Sign("(")) {
        return Err("expected: '('".into());
    }
    let mut values = vec![String::new()];
    loop {
        match tokens.next() {
            Some(Token::Word(value)) => {
                if let Some(last) = values.last_mut() {
                    *last = value.clone();
                }
            }
            Some(Token::Sign(",")) => values.push(String::new()),
            Some(Token::Sign(")")) => return Ok(values),
            other => return Err(format!("found {other:?}, expected: ',' or ')'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str) -> bool {
        let object = json!({"metadata": {"labels": {"app": "web", "n": "5", "a.b/c": ""}}});
        Selector { labels: parse_labels(selector).unwrap(), fields: Vec::new() }.matches(&object)
    }

    #[test]
    fn labels() {
        for yes in [
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "none!=x",
            "!none",
            "app in (db, web)",
            "app notin (db)",
            "none notin (x)",
            "n>4",
            "n<6",
            "a.b/c=",
            "a.b/c",
            "app=web,n=5",
            "",
            "a.b/c in ()",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["none", "app=db", "app!=web", "!app", "app in (db)", "app notin (web,db)", "n>5", "app=web,none"] {
            assert!(!matches(no), "{no}");
        }
        for bad in ["app in web", "=x", "app=a b", "app in (x", "a$b"] {
            assert!(parse_labels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields() {
        let fields = parse_fields("spec.nodeName=a,status.phase!=Failed,x==p\\,q").unwrap();
        let selector = Selector { labels: Vec::new(), fields };
        let mut object = json!({"spec": {"nodeName": "a"}, "x": "p,q"});
        assert!(selector.matches(&object));
        object["status"] = json!({"phase": "Failed"});
        assert!(!selector.matches(&object));
        assert!(parse_fields("nonsense").is_none());
    }
}
