//! What a request asks for: its path, its options, the form of answer it accepts.

use std::sync::Arc;

use axum::extract::Query;
use http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;

use crate::resources::{Registry, Resource};
use crate::status::Rejection;

/// Where a path below a group and version leads.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// The namespace in the path; `None` for all namespaces and cluster-scoped kinds.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// Finds the target of the path segments after `/api/v1` or `/apis/<group>/<version>`.
    pub(crate) fn find(registry: &Registry, group: &str, version: &str, rest: &[String]) -> Result<Self, Rejection> {
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, plural, ..] if !matches!(*plural, "status" | "finalize") => {
                (Some((*namespace).to_owned()), &rest[2..])
            }
            _ => (None, rest.as_slice()),
        };
        let Some((plural, rest)) = rest.split_first() else { return Err(Rejection::no_such_path()) };
        let resource = registry.find(group, version, plural).ok_or_else(Rejection::no_such_path)?;
        if namespace.is_some() != resource.namespaced && (namespace.is_some() || !rest.is_empty()) {
            return Err(Rejection::no_such_path());
        }
        let (name, subresource) = match rest {
            [] => (None, None),
            [name] => (Some((*name).to_owned()), None),
            [name, sub] => (Some((*name).to_owned()), Some((*sub).to_owned())),
            _ => return Err(Rejection::no_such_path()),
        };
        if let Some(sub) = &subresource
            && resource.subresource(sub).is_none()
        {
            return Err(Rejection::no_such_path());
        }
        Ok(Self { resource, namespace, name, subresource })
    }

    /// The namespace as the store keys it.
    pub(crate) fn namespace_key(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn name_key(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// The segments of a path, decoded.
pub(crate) fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect()
}

/// How unknown fields are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The options of a request's query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pairs: Vec<(String, String)>,
}

impl Options {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Rejection> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Rejection::bad_request(format!("invalid query: {error}")))?;
        Ok(Self { pairs: pairs.0 })
    }

    /// The first value of an option that is there and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Whether an option is on.
    pub(crate) fn on(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, value)| name == key && matches!(value.as_str(), "" | "true" | "1"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, Rejection> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Rejection::bad_request(format!("invalid {key}: {text:?} is not a number")))
        };
        self.get(key).map(parse).transpose()
    }

    pub(crate) fn field_validation(&self) -> Result<FieldValidation, Rejection> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(Rejection::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    pub(crate) fn dry_run(&self) -> Result<bool, Rejection> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                Err(Rejection::bad_request(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")))
            }
        }
    }
}

/// The form in which objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    /// Only type and metadata.
    Metadata,
    /// Discovery of everything in one document (`apidiscovery.k8s.io/v2`).
    Aggregated,
}

impl Form {
    /// The first form in the Accept header that this server can give.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, Rejection> {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Ok(Self::Object);
        };
        for clause in accept.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut kind = "";
            let mut version = "";
            for part in parts {
                match part.split_once('=') {
                    Some(("as", value)) => kind = value,
                    Some(("v", value)) => version = value,
                    _ => {}
                }
            }
            let is_json = matches!(media, "application/json" | "*/*" | "application/*");
            match kind {
                _ if !is_json => {}
                "" => return Ok(Self::Object),
                "Table" if matches!(version, "v1" | "v1beta1") => return Ok(Self::Table),
                "PartialObjectMetadata" | "PartialObjectMetadataList" if version == "v1" => return Ok(Self::Metadata),
                "APIGroupDiscoveryList" if version == "v2" => return Ok(Self::Aggregated),
                _ => {}
            }
        }
        if ["text/", "application/yaml", "application/vnd", "protobuf", "application/com."]
            .iter()
            .any(|other| accept.contains(other))
        {
            // Whoever asks for YAML or protobuf alone is answered in JSON, which is YAML, and named so.
            return Ok(Self::Object);
        }
        Err(Rejection::not_acceptable(&["application/json"]))
    }
}

/// Who a write is recorded for: the `fieldManager` option, else the program that the client names itself.
pub(crate) fn manager(options: &Options, headers: &HeaderMap) -> String {
    if let Some(manager) = options.get("fieldManager") {
        return manager.to_owned();
    }
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    agent.split('/').next().unwrap_or("unknown").chars().take(128).collect()
}

/// Media type of the body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let full = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    full.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> Result<Target, Rejection> {
        Target::find(&Registry::default(), "", "v1", &segments(path))
    }

    #[test]
    fn paths_lead_to_their_targets() {
        let target = find("namespaces/a/pods/b/log").unwrap();
        assert_eq!(
            (target.namespace.as_deref(), target.name.as_deref(), target.subresource.as_deref()),
            (Some("a"), Some("b"), Some("log"))
        );
        let target = find("namespaces/a/status").unwrap();
        assert_eq!(target.resource.plural, "namespaces");
        assert_eq!(target.subresource.as_deref(), Some("status"));
        assert!(find("pods").unwrap().namespace.is_none());
        assert!(find("pods/x").is_err());
        assert!(find("namespaces/a/nodes/b").is_err());
        assert!(find("namespaces/a/pods/b/nothing").is_err());
    }

    #[test]
    fn forms_are_taken_in_the_order_of_the_client() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Form::accepted(&headers)
        };
        assert_eq!(form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").unwrap(), Form::Table);
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json").unwrap(), Form::Object);
        assert!(form("image/png").is_err());
    }
}
