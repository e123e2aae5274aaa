//! Create.

use axum::response::Response;
use http::StatusCode;

use super::Call;
use crate::status::Rejection;
use crate::write::decode;

pub(super) fn create(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    if call.resource().namespaced && call.target.namespace.is_none() {
        return Err(Rejection::method_not_allowed());
    }
    let object = decode(call.resource(), body)?;
    let mut writer = call.writer();
    let created = writer.create(object)?;
    Ok(call.answer(StatusCode::CREATED, &created, &writer.warnings))
}
