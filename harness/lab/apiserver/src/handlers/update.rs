//! Replace and patch.

use axum::response::Response;
use http::StatusCode;

use super::Call;
use crate::patch::Patch;
use crate::request::content_type;
use crate::respond::to_storage;
use crate::status::Rejection;
use crate::write::{Proposed, decode};

pub(super) fn replace(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let mut object = decode(call.resource(), body)?;
    to_storage(call.resource(), &mut object);
    let mut writer = call.writer();
    writer.check_fields(&mut object)?;
    let updated = writer.update(call.target.name_key(), |_| Ok(Proposed::replacement(object.clone())))?;
    Ok(call.answer(StatusCode::OK, &updated, &writer.warnings))
}

pub(super) fn patch(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let patch = Patch::read(call.resource(), content_type(&call.headers), body)?;
    let mut writer = call.writer();
    let name = call.target.name_key();
    if let Patch::Apply(config) = patch {
        let force = call.options.on("force");
        if call.options.get("fieldManager").is_none() {
            let text =
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(Rejection::unprocessable(text));
        }
        if call.current().is_none() {
            call.caller.check_creation(&call.cluster)?;
        }
        let (object, created) = writer.apply(name, config, force)?;
        let code = if created { StatusCode::CREATED } else { StatusCode::OK };
        return Ok(call.answer(code, &object, &writer.warnings));
    }
    let resource = call.resource();
    let updated = writer.update(name, |current| patch.applied(resource, current))?;
    Ok(call.answer(StatusCode::OK, &updated, &writer.warnings))
}
