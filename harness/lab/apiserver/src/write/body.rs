//! Bodies of requests: JSON, YAML, which contains it, or protobuf.

use serde_json::Value;

use crate::json::text;
use crate::protobuf;
use crate::resources::Resource;
use crate::status::Rejection;

/// Reads a body.
pub(crate) fn parse_body(body: &[u8]) -> Result<Value, Rejection> {
    if body.starts_with(protobuf::MAGIC) {
        return protobuf::decode(body);
    }
    let error = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let yaml = std::str::from_utf8(body).ok().and_then(|text| serde_saphyr::from_str::<Value>(text).ok());
    yaml.filter(Value::is_object)
        .ok_or_else(|| Rejection::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

/// Reads an object of a kind.
pub(crate) fn decode(resource: &Resource, body: &[u8]) -> Result<Value, Rejection> {
    let mut object = parse_body(body)?;
    check_type(resource, &mut object)?;
    Ok(object)
}

/// Refuses an object that says it is of another kind; adds the kind where it says nothing.
pub(crate) fn check_type(resource: &Resource, object: &mut Value) -> Result<(), Rejection> {
    if !object.is_object() {
        return Err(Rejection::bad_request("the body of the request is no object"));
    }
    let expected = resource.api_version();
    match text(object, &["apiVersion"]) {
        "" => object["apiVersion"] = expected.into(),
        given if given != expected => {
            return Err(Rejection::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({expected})"
            )));
        }
        _ => {}
    }
    match text(object, &["kind"]) {
        "" => object["kind"] = resource.kind.clone().into(),
        given if given != resource.kind => {
            return Err(Rejection::bad_request(format!(
                "{given} in version {:?} cannot be handled as a {}: the kind does not match the path",
                resource.version, resource.kind
            )));
        }
        _ => {}
    }
    crate::json::object(object, "metadata");
    Ok(())
}
