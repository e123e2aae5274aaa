//! Bodies in Kubernetes' protobuf encoding, which Go clients (kubectl from 1.33 on) prefer for built-in kinds.
//!
//! Answers are always JSON, which all of them take. What this does not know it refuses with the status that tells a
//! client to use JSON; it never drops a value that was sent.

mod messages;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::status::Rejection;
use messages::{Field, Kind, message};

/// What every body in this encoding begins with.
pub(crate) const MAGIC: &[u8] = b"k8s\0";

/// Why a body could not be read.
struct Trouble(String);

type Result<T> = std::result::Result<T, Trouble>;

/// A value on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// Reads an object.
pub(crate) fn decode(body: &[u8]) -> std::result::Result<Value, Rejection> {
    envelope(body).map_err(|Trouble(why)| {
        let mut rejection = Rejection::unsupported_media_type(
            "application/vnd.kubernetes.protobuf",
            &["application/json", "application/yaml"],
        );
        rejection.message += &format!(": {why}");
        rejection
    })
}

fn envelope(body: &[u8]) -> Result<Value> {
    let body = body.strip_prefix(MAGIC).ok_or_else(|| Trouble("the prefix is missing".into()))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in fields(body)? {
        match field {
            (1, Wire::Bytes(identity)) => {
                for field in fields(identity)? {
                    match field {
                        (1, Wire::Bytes(text)) => api_version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let schema = message(&kind).ok_or_else(|| Trouble(format!("kind {kind} is only known in JSON here")))?;
    let mut object = Map::new();
    read(&kind, schema, raw, &mut object)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// The fields of a message in the order on the wire.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
                if length > bytes.len() {
                    return Err(Trouble("it ends in the middle of a field".into()));
                }
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Wire::Bytes(value)
            }
            other => return Err(Trouble(format!("wire type {other}"))),
        };
        found.push((tag >> 3, wire));
    }
    Ok(found)
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(Trouble("it ends in the middle of a number".into()))
}

fn string(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Trouble("a text is no UTF-8".into()))
}

fn read(name: &str, schema: &[Field], bytes: &[u8], object: &mut Map<String, Value>) -> Result<()> {
    for (number, wire) in fields(bytes)? {
        let Some(field) = schema.iter().find(|field| field.number == number) else {
            // Go writes fields that are not pointers even when they are empty.
            if matches!(wire, Wire::Varint(0) | Wire::Bytes([])) {
                continue;
            }
            return Err(Trouble(format!("field {number} of {name} is only known in JSON here")));
        };
        if field.kind == Kind::Ignored {
            continue;
        }
        if let (Kind::Inline(inner), Wire::Bytes(bytes)) = (&field.kind, &wire) {
            read(inner, message(inner).unwrap_or_default(), bytes, object)?;
            continue;
        }
        let Some(value) = value(&field.kind, &wire)? else { continue };
        if field.repeated {
            let list = object.entry(field.name.clone()).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(value);
            }
        } else if let (true, Value::Object(entry)) = (field.kind.is_map(), &value) {
            let map = object.entry(field.name.clone()).or_insert_with(|| json!({}));
            crate::json::map(map).extend(entry.clone());
        } else if field.pointer || !is_zero(&value) {
            object.insert(field.name.clone(), value);
        }
    }
    Ok(())
}

/// What Go leaves out of JSON (`omitempty`).
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        other => crate::json::is_empty(other),
    }
}

fn value(kind: &Kind, wire: &Wire<'_>) -> Result<Option<Value>> {
    Ok(Some(match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => string(bytes)?.into(),
        (Kind::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        // Negative numbers are written as 64 bits in two's complement.
        (Kind::Number, Wire::Varint(number)) => number.cast_signed().into(),
        (Kind::Truth, Wire::Varint(number)) => (*number != 0).into(),
        (Kind::Time, Wire::Bytes(bytes)) => return time(bytes),
        (Kind::Quantity, Wire::Bytes(bytes)) => quantity(bytes)?,
        (Kind::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Kind::Map(of), Wire::Bytes(bytes)) => {
            let (mut key, mut entry) = (String::new(), Value::from(""));
            for field in fields(bytes)? {
                match field {
                    (1, Wire::Bytes(text)) => key = string(text)?,
                    (2, wire) => entry = value(of, &wire)?.unwrap_or_default(),
                    _ => {}
                }
            }
            json!({ key: entry })
        }
        (Kind::Message(name), Wire::Bytes(bytes)) => {
            let schema = message(name).ok_or_else(|| Trouble(format!("{name} is only known in JSON here")))?;
            let mut object = Map::new();
            read(name, schema, bytes, &mut object)?;
            Value::Object(object)
        }
        _ => return Err(Trouble("a field has another wire type than expected".into())),
    }))
}

fn time(bytes: &[u8]) -> Result<Option<Value>> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(bytes)? {
        match field {
            (1, Wire::Varint(number)) => seconds = number.cast_signed(),
            (2, Wire::Varint(number)) => nanos = i32::try_from(number).unwrap_or(0),
            _ => {}
        }
    }
    if bytes.is_empty() || seconds == 0 {
        return Ok(None);
    }
    let moment = Timestamp::new(seconds, nanos).map_err(|error| Trouble(error.to_string()))?;
    let format = if nanos == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    Ok(Some(moment.strftime(format).to_string().into()))
}

fn quantity(bytes: &[u8]) -> Result<Value> {
    for field in fields(bytes)? {
        if let (1, Wire::Bytes(text)) = field {
            return Ok(string(text)?.into());
        }
    }
    Ok("0".into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in fields(bytes)? {
        match field {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = string(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let identity = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &identity), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map() {
        let metadata = [field(1, b"m"), field(3, b""), field(8, b"")].concat();
        let entry = [field(1, b"a"), field(2, b"b")].concat();
        let raw = [field(1, &metadata), field(2, &entry), vec![4 << 3, 0]].concat();
        assert_eq!(
            decode(&body("ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}, "immutable": false})
        );
    }

    #[test]
    fn nothing_is_dropped_silently() {
        assert!(decode(&body("Unknown", b"")).is_err());
        let unknown = decode(&body("ConfigMap", &field(9, b"x"))).unwrap_err();
        assert_eq!(unknown.code, 415);
        assert!(unknown.message.contains("field 9 of ConfigMap"), "{}", unknown.message);
        assert!(decode(&body("ConfigMap", &[2 << 3 | 2, 200])).is_err());
    }
}
