//! All kinds as CustomResourceDefinitions, with the columns that `kubectl get` shows of KubeVirt's.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

/// Kind, plural, singular, short names, columns: name, type, path, priority.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str, &'static str, i32)]);

const AGE: (&str, &str, &str, i32) = ("Age", "date", ".metadata.creationTimestamp", 0);

const KINDS: [Row; 4] = [
    (
        "VirtualMachine",
        "virtualmachines",
        &["vm", "vms"],
        &[
            AGE,
            ("Status", "string", ".status.printableStatus", 0),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0),
        ],
    ),
    (
        "VirtualMachineInstance",
        "virtualmachineinstances",
        &["vmi", "vmis"],
        &[
            AGE,
            ("Phase", "string", ".status.phase", 0),
            ("IP", "string", ".status.interfaces[0].ipAddress", 0),
            ("NodeName", "string", ".status.nodeName", 0),
            ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0),
            ("Live-Migratable", "string", ".status.conditions[?(@.type=='LiveMigratable')].status", 1),
            ("Paused", "string", ".status.conditions[?(@.type=='Paused')].status", 1),
        ],
    ),
    (
        "VirtualMachineInstanceMigration",
        "virtualmachineinstancemigrations",
        &["vmim", "vmims"],
        &[("Phase", "string", ".status.phase", 0), ("VMI", "string", ".spec.vmiName", 0)],
    ),
    ("KubeVirt", "kubevirts", &["kv", "kvs"], &[AGE, ("Phase", "string", ".status.phase", 0)]),
];

/// Every kind, ready to be created in an API server.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    // They are what the table above says: nothing of it can fail to be read.
    KINDS.iter().filter_map(|row| serde_json::from_value(definition(row)).ok()).collect()
}

fn definition((kind, plural, short, columns): &Row) -> Value {
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, kind, path, priority)| json!({"name": name, "type": kind, "jsonPath": path, "priority": priority}))
        .collect();
    let categories: &[&str] = if *kind == "KubeVirt" || kind.ends_with("Migration") { &[] } else { &["all"] };
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "metadata": {"name": format!("{plural}.kubevirt.io"), "labels": {"kubevirt.io": ""}},
        "spec": {
            "group": "kubevirt.io", "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
                "shortNames": short, "categories": categories,
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "additionalPrinterColumns": columns, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                        "spec": spec(kind, &open), "status": open,
                    },
                }},
            }],
        },
    })
}

/// What is checked when an object is written; everything else is let through.
fn spec(kind: &str, open: &Value) -> Value {
    let mut spec = open.clone();
    match kind {
        "VirtualMachine" => {
            spec["required"] = json!(["template"]);
            spec["properties"] = json!({
                "running": {"type": "boolean"},
                "runStrategy": {"type": "string", "enum": ["Always", "Halted", "Manual", "RerunOnFailure", "Once"]},
                "template": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true, "required": ["spec"],
                    "properties": {"spec": instance(open)},
                },
            });
            spec["x-kubernetes-validations"] = json!([{
                "rule": "has(self.running) != has(self.runStrategy)",
                "message": "one of running and runStrategy must be given, and not both",
            }]);
        }
        "VirtualMachineInstance" => spec = instance(open),
        "VirtualMachineInstanceMigration" => {
            spec["required"] = json!(["vmiName"]);
            spec["properties"] = json!({
                "vmiName": {"type": "string", "minLength": 1},
                "addedNodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
            });
        }
        _ => {}
    }
    spec
}

fn instance(open: &Value) -> Value {
    let mut spec = open.clone();
    let mut domain = open.clone();
    domain["required"] = json!(["devices"]);
    domain["properties"] = json!({"devices": open});
    spec["required"] = json!(["domain"]);
    spec["properties"] = json!({
        "domain": domain,
        "terminationGracePeriodSeconds": {"type": "integer", "minimum": 0},
        "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
        "networks": {"type": "array", "items": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true, "required": ["name"],
            "properties": {"name": {"type": "string"}},
        }},
    });
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_definition() {
        let crds = crds();
        let names: Vec<_> = crds.iter().filter_map(|crd| crd.metadata.name.as_deref()).collect();
        assert_eq!(names.len(), KINDS.len());
        assert!(names.contains(&"virtualmachineinstancemigrations.kubevirt.io"), "{names:?}");
    }
}
