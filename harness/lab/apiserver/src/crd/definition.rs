//! From a CustomResourceDefinition to the resources that it gives.

use std::collections::HashMap;

use kube::core::cel::{RootContext, compile_schema};
use regex::Regex;
use serde_json::{Value, json};

use super::columns::Column;
use super::{CustomVersion, ScalePaths};
use crate::json::{at, list, name, text, truth};
use crate::resources::{Resource, Subresource, Verbs, group_version};
use crate::status::FieldError;

const READ: &[&str] = &["get", "patch", "update"];
const STATUS: Subresource = Subresource { name: "status", kind: None, verbs: READ };
const SCALE: Subresource = Subresource { name: "scale", kind: Some(("autoscaling", "v1", "Scale")), verbs: READ };

/// The shelf of a definition's objects.
pub(crate) fn storage(definition: &Value) -> String {
    format!("{}/{}", text(definition, &["spec", "group"]), text(definition, &["spec", "names", "plural"]))
}

fn strings(value: &Value, path: &[&str]) -> Vec<String> {
    list(value, path).iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// The served versions of a definition, in the order in which Kubernetes prefers them.
pub(crate) fn resources(definition: &Value) -> Vec<Resource> {
    let mut versions: Vec<&Value> =
        list(definition, &["spec", "versions"]).iter().filter(|version| truth(version, &["served"])).collect();
    versions.sort_by_cached_key(|version| std::cmp::Reverse(priority(text(version, &["name"]))));
    versions.into_iter().map(|version| resource(definition, version)).collect()
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then anything else.
pub(crate) fn priority(version: &str) -> (u8, u64, u64) {
    let parse = || -> Option<(u8, u64, u64)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        match &rest[digits..] {
            "" => Some((3, major, 0)),
            tail => {
                let (level, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                    (Some(minor), _) => (2, minor),
                    (_, Some(minor)) => (1, minor),
                    _ => return None,
                };
                Some((level, major, minor.parse().ok()?))
            }
        }
    };
    parse().unwrap_or((0, 0, 0))
}

fn resource(definition: &Value, version: &Value) -> Resource {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let (group, api, kind) = (text(spec, &["group"]), text(version, &["name"]), text(names, &["kind"]));
    let mut subresources = Vec::new();
    if at(version, &["subresources", "status"]).is_some_and(Value::is_object) {
        subresources.push(STATUS);
    }
    let scale = at(version, &["subresources", "scale"]).filter(|scale| scale.is_object());
    if scale.is_some() {
        subresources.push(SCALE);
    }
    let schema = at(version, &["schema", "openAPIV3Schema"]).cloned();
    let schema = schema.unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let mut patterns = HashMap::new();
    collect_patterns(&schema, &mut patterns);
    let custom = CustomVersion {
        definition: name(definition).to_owned(),
        rules: compile_schema(&schema),
        has_rules: has_rules(&schema),
        root: RootContext {
            api_version: group_version(group, api),
            api_group: group.to_owned(),
            kind: kind.to_owned(),
        },
        columns: Column::all(list(version, &["additionalPrinterColumns"])),
        selectable: list(version, &["selectableFields"])
            .iter()
            .map(|field| text(field, &["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        scale: scale.map(|scale| ScalePaths {
            replicas: text(scale, &["specReplicasPath"]).to_owned(),
            observed: text(scale, &["statusReplicasPath"]).to_owned(),
            selector: Some(text(scale, &["labelSelectorPath"]).to_owned()).filter(|path| !path.is_empty()),
        }),
        patterns,
        schema_source: schema,
    };
    Resource {
        group: group.to_owned(),
        version: api.to_owned(),
        kind: kind.to_owned(),
        plural: text(names, &["plural"]).to_owned(),
        singular: text(names, &["singular"]).to_owned(),
        short: strings(names, &["shortNames"]),
        categories: strings(names, &["categories"]),
        namespaced: text(spec, &["scope"]) == "Namespaced",
        verbs: Verbs::All,
        subresources,
        storage: storage(definition).into(),
        custom: Some(custom.into()),
    }
}

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(pattern)) = map.get("pattern")
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.clone(), regex);
            }
            map.values().for_each(|below| collect_patterns(below, patterns));
        }
        Value::Array(items) => items.iter().for_each(|below| collect_patterns(below, patterns)),
        _ => {}
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

/// What is wrong with a definition.
pub(crate) fn check(definition: &Value) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut errors = Vec::new();
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    if name(definition) != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &name(definition).into(), detail));
    }
    for key in ["plural", "kind"] {
        if text(spec, &["names", key]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
        }
    }
    if !matches!(text(spec, &["scope"]), "Namespaced" | "Cluster") {
        errors.push(FieldError::unsupported("spec.scope", &spec["scope"], ["Cluster", "Namespaced"]));
    }
    let versions = list(spec, &["versions"]);
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", "must have at least one version"));
    } else if versions.iter().filter(|version| truth(version, &["storage"])).count() != 1 {
        let names: Vec<&str> = versions.iter().map(|version| text(version, &["name"])).collect();
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!(names), detail));
    }
    for (number, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{number}].schema.openAPIV3Schema");
        let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else {
            errors.push(FieldError::required(path, "schemas are required"));
            continue;
        };
        if text(schema, &["type"]) != "object" {
            errors.push(FieldError::invalid(format!("{path}.type"), &schema["type"], "must be object at the root"));
        }
        for problem in compile_schema(schema).compilation_errors() {
            let detail = format!("compilation failed: {problem}");
            errors.push(FieldError::invalid(format!("{path}.x-kubernetes-validations"), &json!("object"), &detail));
        }
        check_patterns(schema, &path, &mut errors);
    }
    errors
}

fn check_patterns(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(pattern)) = map.get("pattern")
                && let Err(error) = Regex::new(pattern)
            {
                let detail = format!("must be a valid regular expression, but isn't: {error}");
                errors.push(FieldError::invalid(format!("{path}.pattern"), &json!(pattern), &detail));
            }
            for (key, below) in map {
                check_patterns(below, &format!("{path}.{key}"), errors);
            }
        }
        Value::Array(items) => items.iter().for_each(|below| check_patterns(below, path, errors)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_are_preferred() {
        let mut versions = ["v1alpha1", "v1", "v2beta1", "odd", "v10", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v1", "v2beta1", "v1beta2", "v1alpha1", "odd"]);
    }
}
