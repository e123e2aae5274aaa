//! Tables: what `kubectl get` prints.

mod age;
mod columns;
mod kinds;
mod pod;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::request::Options;
use crate::resources::Resource;
use crate::respond::{partial, shown};

/// A column: name, type, whether only wide tables show it.
type Column = (&'static str, &'static str, bool);

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn columns(resource: &Resource) -> Vec<Value> {
    let name = || definition("Name", "string", "name", "Name must be unique within a namespace.", 0);
    if let Some(custom) = &resource.custom {
        let own = custom
            .columns
            .iter()
            .map(|column| definition(&column.name, &column.kind, &column.format, &column.description, column.priority));
        return std::iter::once(name()).chain(own).collect();
    }
    columns::columns(resource)
        .iter()
        .map(
            |(title, kind, wide)| {
                if *title == "Name" { name() } else { definition(title, kind, "", title, i64::from(*wide)) }
            },
        )
        .collect()
}

fn row(resource: &Resource, object: &Value, options: &Options) -> Value {
    let cells = match &resource.custom {
        Some(custom) => {
            let mut cells = vec![object["metadata"]["name"].clone()];
            cells.extend(custom.columns.iter().map(|column| custom_cell(column, object)));
            cells
        }
        None => kinds::cells(resource, object),
    };
    let mut row = json!({ "cells": cells });
    match options.get("includeObject") {
        Some("None") => {}
        Some("Object") => row["object"] = shown(resource, object),
        _ => row["object"] = partial(object),
    }
    row
}

fn custom_cell(column: &crate::crd::Column, object: &Value) -> Value {
    let found = column.path.find(object);
    let Some(first) = found.first() else {
        return if column.kind == "string" { "".into() } else { Value::Null };
    };
    match column.kind.as_str() {
        "date" => first.as_str().map_or(Value::Null, |text| age::of_text(text).into()),
        "string" => {
            let texts: Vec<String> =
                found.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)).collect();
            texts.join(",").into()
        }
        "integer" => first.as_i64().map_or(Value::Null, Into::into),
        "number" => first.as_f64().map_or(Value::Null, Into::into),
        "boolean" => first.as_bool().map_or(Value::Null, Into::into),
        _ => Value::Null,
    }
}

fn table(columns: Vec<Value>, rows: Vec<Value>, metadata: Value) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// One object.
pub(crate) fn one(resource: &Resource, object: &Value, options: &Options) -> Value {
    let version = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
    table(columns(resource), vec![row(resource, object, options)], version)
}

/// A list.
pub(crate) fn many(resource: &Resource, objects: &[Arc<Value>], options: &Options, metadata: Value) -> Value {
    let rows = objects.iter().map(|object| row(resource, object, options)).collect();
    table(columns(resource), rows, metadata)
}

/// An event of a watch. Only the first one of a watch names the columns.
pub(crate) fn event(resource: &Resource, object: &Value, options: &Options, told: bool) -> Value {
    let mut table = one(resource, object, options);
    if told {
        table["columnDefinitions"] = Value::Null;
    }
    table
}

/// A bookmark.
pub(crate) fn bookmark(object: &Value) -> Value {
    let row = json!({"cells": [], "object": partial(object)});
    table(Vec::new(), vec![row], json!({"resourceVersion": object["metadata"]["resourceVersion"]}))
}
