//! Validation by a structural schema (OpenAPI v3), with the texts of Kubernetes.

use std::collections::HashMap;
use std::net::IpAddr;

use regex::Regex;
use serde_json::Value;

use crate::json::truth;
use crate::status::FieldError;

/// One pass over an object.
pub(super) struct Check<'a> {
    pub(super) patterns: &'a HashMap<String, Regex>,
    pub(super) errors: &'a mut Vec<FieldError>,
}

/// JSON type of a value, as schemas name it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    let found = type_of(value);
    found == wanted
        || (wanted == "number" && found == "integer")
        || (wanted == "integer" && value.as_f64().is_some_and(|number| number.fract() == 0.0))
}

impl Check<'_> {
    /// Checks an object; its type and metadata are checked elsewhere.
    pub(super) fn root(&mut self, schema: &Value, object: &Value) {
        self.value(schema, object, "");
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if value.is_null() && truth(schema, &["nullable"]) {
            return;
        }
        if truth(schema, &["x-kubernetes-int-or-string"]) {
            if !matches!(value, Value::String(_)) && !has_type(value, "integer") {
                self.wrong_type(path, "integer,string", value);
                return;
            }
        } else if let Some(wanted) = schema.get("type").and_then(Value::as_str)
            && !has_type(value, wanted)
        {
            self.wrong_type(path, wanted, value);
            return;
        }
        self.enumeration(schema, value, path);
        match value {
            Value::Object(map) => self.object(schema, map, value, path),
            Value::Array(items) => self.array(schema, items, path),
            Value::String(text) => self.string(schema, text, path),
            Value::Number(_) => self.number(schema, value, path),
            _ => {}
        }
        self.junctors(schema, value, path);
    }

    fn invalid(&mut self, path: &str, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(path, value, &format!("{path} in body {detail}")));
    }

    fn wrong_type(&mut self, path: &str, wanted: &str, value: &Value) {
        let found = type_of(value);
        self.errors.push(FieldError::type_invalid(
            path,
            found,
            &format!("{path} in body must be of type {wanted}: {found:?}"),
        ));
    }

    fn enumeration(&mut self, schema: &Value, value: &Value, path: &str) {
        let Some(allowed) = schema.get("enum").and_then(Value::as_array) else { return };
        if !allowed.contains(value) {
            let texts: Vec<String> =
                allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), ToOwned::to_owned)).collect();
            self.errors.push(FieldError::unsupported(path, value, texts.iter().map(String::as_str)));
        }
    }

    fn object(&mut self, schema: &Value, map: &serde_json::Map<String, Value>, value: &Value, path: &str) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(key) {
                self.errors.push(FieldError::required(join(key), ""));
            }
        }
        if let Some(most) = schema.get("maxProperties").and_then(Value::as_u64)
            && map.len() as u64 > most
        {
            self.errors.push(FieldError::too_many(path, map.len(), most));
        }
        if let Some(least) = schema.get("minProperties").and_then(Value::as_u64)
            && (map.len() as u64) < least
        {
            self.invalid(path, value, &format!("should have at least {least} properties"));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|other| other.is_object());
        for (key, below) in map {
            if path.is_empty() && key == "metadata" {
                continue;
            }
            if let Some(schema) = properties.and_then(|all| all.get(key)).or(others) {
                self.value(schema, below, &join(key));
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], path: &str) {
        if let Some(most) = schema.get("maxItems").and_then(Value::as_u64)
            && items.len() as u64 > most
        {
            self.errors.push(FieldError::too_many(path, items.len(), most));
        }
        if let Some(least) = schema.get("minItems").and_then(Value::as_u64)
            && (items.len() as u64) < least
        {
            self.invalid(path, &items.len().into(), &format!("should have at least {least} items"));
        }
        self.unique(schema, items, path);
        if let Some(schema) = schema.get("items") {
            for (at, item) in items.iter().enumerate() {
                self.value(schema, item, &format!("{path}[{at}]"));
            }
        }
    }

    fn unique(&mut self, schema: &Value, items: &[Value], path: &str) {
        let identity: Vec<Value> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => items.to_vec(),
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
                let pick = |item: &Value| {
                    keys.iter().filter_map(|key| Some(((*key).to_owned(), item.get(key)?.clone()))).collect::<Value>()
                };
                items.iter().map(pick).collect()
            }
            _ => return,
        };
        for (at, one) in identity.iter().enumerate() {
            if identity[..at].contains(one) {
                self.errors.push(FieldError::duplicate(format!("{path}[{at}]"), one));
            }
        }
    }

    fn string(&mut self, schema: &Value, text: &str, path: &str) {
        let value = Value::from(text);
        let length = text.chars().count() as u64;
        if let Some(most) = schema.get("maxLength").and_then(Value::as_u64)
            && length > most
        {
            self.errors.push(FieldError::too_long(path, most));
        }
        if let Some(least) = schema.get("minLength").and_then(Value::as_u64)
            && length < least
        {
            self.invalid(path, &value, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            self.invalid(path, &value, &format!("should match '{pattern}'"));
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str)
            && !has_format(text, format)
        {
            self.invalid(path, &value, &format!("must be of type {format}: {text:?}"));
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        let Some(number) = value.as_f64() else { return };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        if let Some(least) = bound("minimum") {
            let open = truth(schema, &["exclusiveMinimum"]);
            if number < least || (open && number == least) {
                let or = if open { "" } else { " or equal to" };
                self.invalid(path, value, &format!("should be greater than{or} {least}"));
            }
        }
        if let Some(most) = bound("maximum") {
            let open = truth(schema, &["exclusiveMaximum"]);
            if number > most || (open && number == most) {
                let or = if open { "" } else { " or equal to" };
                self.invalid(path, value, &format!("should be less than{or} {most}"));
            }
        }
        if let Some(step) = bound("multipleOf")
            && step != 0.0
            && (number / step).fract() != 0.0
        {
            self.invalid(path, value, &format!("should be a multiple of {step}"));
        }
        let fits = match schema.get("format").and_then(Value::as_str) {
            Some("int32") => value.as_i64().is_none_or(|number| i32::try_from(number).is_ok()),
            Some("int64") => value.as_i64().is_some() || value.is_f64(),
            _ => true,
        };
        if !fits {
            self.invalid(
                path,
                value,
                &format!("must be of type {}: {value}", schema["format"].as_str().unwrap_or_default()),
            );
        }
    }

    fn junctors(&mut self, schema: &Value, value: &Value, path: &str) {
        let shown = if path.is_empty() { "<nil>" } else { path };
        let holds = |branch: &Value| {
            let mut errors = Vec::new();
            Check { patterns: self.patterns, errors: &mut errors }.value(branch, value, path);
            errors
        };
        let branches = |key: &str| schema.get(key).and_then(Value::as_array);
        let mut found = Vec::new();
        if let Some(all) = branches("allOf") {
            all.iter().for_each(|branch| found.extend(holds(branch)));
        }
        if let Some(any) = branches("anyOf")
            && !any.iter().any(|branch| holds(branch).is_empty())
        {
            let detail = format!("{path:?} must validate at least one schema (anyOf)");
            found.push(FieldError::invalid(shown, &"".into(), &detail));
        }
        if let Some(one) = branches("oneOf") {
            let count = one.iter().filter(|branch| holds(branch).is_empty()).count();
            if count != 1 {
                let what =
                    if count == 0 { "Found none valid".into() } else { format!("Found {count} valid alternatives") };
                let detail = format!("{path:?} must validate one and only one schema (oneOf). {what}");
                found.push(FieldError::invalid(shown, &"".into(), &detail));
            }
        }
        if let Some(not) = schema.get("not")
            && holds(not).is_empty()
        {
            found.push(FieldError::invalid(shown, &"".into(), &format!("{path:?} must not validate the schema (not)")));
        }
        self.errors.extend(found);
    }
}

/// The formats that Kubernetes checks; others are only remarks.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "ipv4" => text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
        "ipv6" => text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => {
            let parts: Vec<&str> = text.split([':', '-']).collect();
            matches!(parts.len(), 6 | 8)
                && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
        }
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "uuid" | "uuid4" => text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(schema: Value, spec: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": schema}});
        let pattern = "^[a-z]+$";
        let patterns = HashMap::from([(pattern.to_owned(), Regex::new(pattern).unwrap())]);
        let mut errors = Vec::new();
        Check { patterns: &patterns, errors: &mut errors }.root(&schema, &json!({ "spec": spec }));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn errors_read_as_those_of_kubernetes() {
        let schema = json!({
            "type": "object", "required": ["need"],
            "properties": {
                "topology": {"type": "string", "enum": ["Layer2", "Layer3"]},
                "mtu": {"type": "integer", "minimum": 576, "maximum": 65536},
                "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
                "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
            },
        });
        assert_eq!(
            texts(schema, json!({"topology": "X", "mtu": 5, "name": "ABCD", "list": ["a", 1, "c"]})),
            [
                "spec.need: Required value",
                "spec.list: Too many: 3: must have at most 2 items",
                "spec.list[1]: Invalid value: \"integer\": spec.list[1] in body must be of type string: \"integer\"",
                "spec.mtu: Invalid value: 5: spec.mtu in body should be greater than or equal to 576",
                "spec.name: Too long: may not be more than 3 bytes",
                "spec.name: Invalid value: \"ABCD\": spec.name in body should match '^[a-z]+$'",
                "spec.topology: Unsupported value: \"X\": supported values: \"Layer2\", \"Layer3\"",
            ]
        );
    }

    #[test]
    fn junctors_and_lists() {
        let one_of = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"});
        assert!(texts(one_of.clone(), json!({"a": 1})).is_empty());
        assert_eq!(texts(one_of.clone(), json!({"a": 1, "b": 2})).len(), 1);
        assert_eq!(texts(one_of, json!({})).len(), 1);
        let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]});
        assert_eq!(texts(keyed, json!([{"k": 1}, {"k": 1, "x": 2}])), ["spec[1]: Duplicate value: {\"k\":1}"]);
    }
}
