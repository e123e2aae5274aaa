//! CustomResourceDefinitions: names, and the conditions that tell that they are served.

use serde_json::{Value, json};

use super::condition;
use crate::json::{default, list, text, truth};

pub(super) fn definition(value: &mut Value) {
    let kind = text(value, &["spec", "names", "kind"]).to_owned();
    let spec = &mut value["spec"];
    default(spec, "conversion", json!({"strategy": "None"}));
    default(&mut spec["names"], "singular", kind.to_lowercase());
    default(&mut spec["names"], "listKind", format!("{kind}List"));
    let versions: Vec<Value> = list(value, &["spec", "versions"]).to_vec();
    if value.get("status").is_some() {
        value["status"]["acceptedNames"] = value["spec"]["names"].clone();
        stored_versions(value, &versions);
    }
}

/// Names are never in conflict here: a second definition of a plural has the same name, and names are unique.
pub(super) fn first_status(value: &mut Value) {
    let versions: Vec<Value> = list(value, &["spec", "versions"]).to_vec();
    value["status"] = json!({
        "acceptedNames": value["spec"]["names"],
        "conditions": [
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": [],
    });
    stored_versions(value, &versions);
}

fn stored_versions(value: &mut Value, versions: &[Value]) {
    let mut stored: Vec<Value> = list(value, &["status", "storedVersions"]).to_vec();
    for version in versions.iter().filter(|version| truth(version, &["storage"])) {
        if !stored.contains(&version["name"]) {
            stored.push(version["name"].clone());
        }
    }
    value["status"]["storedVersions"] = stored.into();
}
