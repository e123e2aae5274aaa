//! The entries of `metadata.managedFields`.

use serde_json::{Value, json};

use super::path::{Path, Set, from_fields_v1, to_fields_v1};
use super::walk::Changes;
use crate::json::{map, now, remove, text};

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What one manager owns.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    subresource: String,
    time: String,
    pub(super) set: Set,
}

impl PartialEq for Manager {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.name, other.operation, &other.subresource)
            && self.api_version == other.api_version
            && self.set == other.set
    }
}

impl Manager {
    fn is(&self, name: &str, operation: Operation, subresource: &str) -> bool {
        self.name == name && self.operation == operation && self.subresource == subresource
    }

    /// The manager as conflicts name it.
    pub(super) fn in_texts(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers(pub(super) Vec<Manager>);

impl Managers {
    pub(super) fn read(object: &Value) -> Self {
        let entries = crate::json::list(object, &["metadata", "managedFields"]);
        let managers = entries.iter().map(|entry| Manager {
            name: text(entry, &["manager"]).to_owned(),
            operation: if text(entry, &["operation"]) == "Apply" { Operation::Apply } else { Operation::Update },
            api_version: text(entry, &["apiVersion"]).to_owned(),
            subresource: text(entry, &["subresource"]).to_owned(),
            time: text(entry, &["time"]).to_owned(),
            set: from_fields_v1(&entry["fieldsV1"]),
        });
        Self(managers.collect())
    }

    pub(super) fn write(&self, object: &mut Value) {
        let entries: Vec<Value> = self
            .0
            .iter()
            .filter(|manager| !manager.set.is_empty())
            .map(|manager| {
                let mut entry = json!({
                    "manager": manager.name, "operation": manager.operation.name(), "apiVersion": manager.api_version,
                    "time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": to_fields_v1(&manager.set),
                });
                if !manager.subresource.is_empty() {
                    entry["subresource"] = manager.subresource.clone().into();
                }
                entry
            })
            .collect();
        if entries.is_empty() {
            remove(&mut object["metadata"], "managedFields");
        } else {
            map(&mut object["metadata"]).insert("managedFields".into(), entries.into());
        }
    }

    pub(super) fn find(&self, name: &str, operation: Operation, subresource: Option<&str>) -> Option<&Manager> {
        self.0.iter().find(|one| one.is(name, operation, subresource.unwrap_or_default()))
    }

    /// Managers other than one.
    pub(super) fn others<'a>(
        &'a self,
        name: &'a str,
        operation: Operation,
        subresource: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Manager> {
        self.0.iter().filter(move |one| !one.is(name, operation, subresource.unwrap_or_default()))
    }

    /// Makes a manager own exactly `set`.
    pub(super) fn set(
        &mut self,
        name: &str,
        operation: Operation,
        api_version: &str,
        subresource: Option<&str>,
        set: Set,
    ) {
        let subresource = subresource.unwrap_or_default();
        match self.0.iter_mut().find(|one| one.is(name, operation, subresource)) {
            Some(manager) if manager.set == set && manager.api_version == api_version => {}
            Some(manager) => {
                manager.set = set;
                manager.api_version = api_version.to_owned();
                manager.time = now();
            }
            None => self.0.push(Manager {
                name: name.to_owned(),
                operation,
                api_version: api_version.to_owned(),
                subresource: subresource.to_owned(),
                time: now(),
                set,
            }),
        }
    }

    /// Makes a manager own `more` beside what it owns.
    pub(super) fn add(
        &mut self,
        name: &str,
        operation: Operation,
        api_version: &str,
        subresource: Option<&str>,
        more: &Set,
    ) {
        let mut set = self.find(name, operation, subresource).map(|manager| manager.set.clone()).unwrap_or_default();
        set.extend(more.iter().cloned());
        self.set(name, operation, api_version, subresource, set);
    }

    /// Takes from everybody what changed: its owner is whoever changed it.
    pub(super) fn take_over(&mut self, changes: &Changes) {
        for manager in &mut self.0 {
            manager.set.retain(|path| !changes.now.contains(path) && !changes.gone.contains(path));
        }
    }

    /// Takes fields from everybody but one.
    pub(super) fn take(&mut self, name: &str, operation: Operation, subresource: Option<&str>, lost: &Set) {
        for manager in &mut self.0 {
            if !manager.is(name, operation, subresource.unwrap_or_default()) {
                manager.set.retain(|path| !lost.contains(path));
            }
        }
    }

    /// Whether one of the others owns a field, or something below it.
    pub(super) fn is_owned_by_others(
        &self,
        name: &str,
        operation: Operation,
        subresource: Option<&str>,
        path: &Path,
    ) -> bool {
        self.others(name, operation, subresource).any(|one| one.set.iter().any(|other| other.starts_with(path)))
    }
}
