//! Which parts of an object merge, and how: granular or as a whole, lists by key, as sets, or as a whole.

use serde_json::{Value, json};

use super::builtin;
use crate::resources::Resource;

/// What is known about a place in an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape<'a> {
    /// A type of a built-in kind, or of the metadata that all kinds have.
    Named(&'static str),
    /// A list of a built-in kind.
    List(&'static builtin::List),
    /// A node of a custom resource's schema.
    Schema(&'a Value),
    /// The root of a custom resource.
    Custom(&'a Value),
    /// Granular if it is an object, a whole if it is a list.
    Unknown,
    /// A whole.
    Atomic,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Items {
    /// Not at all: the list is a whole.
    Whole,
    /// By value.
    Set,
    /// By these fields, with the value that counts when one is missing.
    Keyed(Vec<(String, Option<Value>)>),
}

impl<'a> Shape<'a> {
    /// The shape of a kind's objects.
    pub(crate) fn root(resource: &'a Resource) -> Self {
        match &resource.custom {
            Some(custom) => Self::Custom(&custom.schema_source),
            None => Self::Named(builtin::root(&resource.group, &resource.kind)),
        }
    }

    pub(crate) fn field(self, name: &str) -> Self {
        match self {
            Self::Named(kind) => builtin::field(kind, name),
            Self::Custom(_) if name == "metadata" => Self::Named("ObjectMeta"),
            Self::Custom(schema) | Self::Schema(schema) => match schema.get("properties").and_then(|all| all.get(name))
            {
                Some(property) => Self::Schema(property),
                None => match schema.get("additionalProperties").filter(|other| other.is_object()) {
                    Some(property) => Self::Schema(property),
                    None => Self::Unknown,
                },
            },
            Self::List(_) | Self::Unknown => Self::Unknown,
            Self::Atomic => Self::Atomic,
        }
    }

    pub(crate) fn item(self) -> Self {
        match self {
            Self::List(list) => Self::Named(list.item),
            Self::Schema(schema) => schema.get("items").map_or(Self::Unknown, Self::Schema),
            _ => Self::Unknown,
        }
    }

    /// Whether an object here is replaced as a whole.
    pub(crate) fn is_whole(self) -> bool {
        match self {
            Self::Atomic => true,
            Self::Schema(schema) => schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            _ => false,
        }
    }

    /// How items of a list here are told apart by server-side apply.
    pub(crate) fn items(self) -> Items {
        match self {
            Self::List(list) if list.keys.is_empty() => Items::Set,
            Self::List(list) => {
                let key = |key: &&str| ((*key).to_owned(), (*key == "protocol").then(|| json!("TCP")));
                Items::Keyed(list.keys.iter().map(key).collect())
            }
            Self::Schema(schema) => match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => Items::Set,
                Some("map") => {
                    let default = |key: &str| schema.get("items")?.get("properties")?.get(key)?.get("default").cloned();
                    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                    let keys = keys.into_iter().flatten().filter_map(Value::as_str);
                    Items::Keyed(keys.map(|key| (key.to_owned(), default(key))).collect())
                }
                _ => Items::Whole,
            },
            _ => Items::Whole,
        }
    }

    /// The field that tells items of a list here apart in strategic merge patches; `Some("")` for sets of values.
    pub(crate) fn merge_key(self) -> Option<&'static str> {
        match self {
            Self::List(list) => list.merge_key,
            _ => None,
        }
    }
}
