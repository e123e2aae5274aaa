//! Patches: what a client sends to change an object.

mod strategic;

use serde_json::Value;

use crate::fields::shape::Shape;
use crate::resources::Resource;
use crate::respond::{convert, to_storage};
use crate::status::Rejection;
use crate::write::{Proposed, check_type, parse_body};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch, read.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which merges lists.
    Strategic(Value),
    /// A configuration for server-side apply.
    Apply(Value),
}

impl Patch {
    /// Reads the patch of a kind's object.
    pub(crate) fn read(resource: &Resource, media_type: &str, body: &[u8]) -> Result<Self, Rejection> {
        match media_type {
            APPLY | "application/apply-patch+cbor" => Ok(Self::Apply(parse_body(body)?)),
            STRATEGIC if resource.is_custom() => {
                Err(Rejection::unsupported_media_type(STRATEGIC, &[JSON, MERGE, APPLY]))
            }
            STRATEGIC => Ok(Self::Strategic(parse_body(body)?)),
            _ => Self::read_plain(media_type, body),
        }
    }

    /// Reads a patch that needs no knowledge of a kind.
    pub(crate) fn read_plain(media_type: &str, body: &[u8]) -> Result<Self, Rejection> {
        match media_type {
            JSON => {
                let operations = serde_json::from_slice(body)
                    .map_err(|error| Rejection::bad_request(format!("error decoding patch: {error}")))?;
                Ok(Self::Json(operations))
            }
            MERGE | STRATEGIC => Ok(Self::Merge(parse_body(body)?)),
            other => Err(Rejection::unsupported_media_type(other, &[JSON, MERGE, STRATEGIC, APPLY])),
        }
    }

    /// The object that the patch makes of the present one.
    pub(crate) fn applied(&self, resource: &Resource, current: &Value) -> Result<Proposed, Rejection> {
        let mut shown = current.clone();
        convert(resource, &mut shown);
        let mut next = match self {
            Self::Strategic(patch) => {
                let mut next = shown;
                strategic::merge(Shape::root(resource), &mut next, patch)?;
                next
            }
            _ => self.applied_plain(&shown)?,
        };
        check_type(resource, &mut next)?;
        to_storage(resource, &mut next);
        Ok(Proposed::change(next))
    }

    /// What the patch makes of any document.
    pub(crate) fn applied_plain(&self, current: &Value) -> Result<Value, Rejection> {
        let mut next = current.clone();
        match self {
            Self::Json(operations) => json_patch::patch(&mut next, operations)
                .map_err(|error| Rejection::unprocessable(format!("the patch cannot be applied: {error}")))?,
            Self::Merge(patch) | Self::Strategic(patch) | Self::Apply(patch) => json_patch::merge(&mut next, patch),
        }
        Ok(next)
    }
}
