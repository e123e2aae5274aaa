//! The verbs.

mod bootstrap;
mod create;
mod delete;
mod pods;
mod questions;
mod read;
mod scale;
mod update;
mod watch;

pub(crate) use bootstrap::bootstrap;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::authorization::Caller;
use crate::request::{FieldValidation, Form, Options, Target, manager, segments};
use crate::resources::{Resource, Verbs};
use crate::respond::{partial, reply, shown, warn};
use crate::server::Cluster;
use crate::status::Rejection;
use crate::write::Writer;
use crate::{aggregation, discovery, proxy, table};

/// Largest body of a request, as Kubernetes has it.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// A request, taken apart.
pub(crate) struct Call {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) target: Target,
    pub(crate) options: Options,
    pub(crate) form: Form,
    pub(crate) headers: HeaderMap,
    pub(crate) caller: Arc<Caller>,
    manager: String,
    dry_run: bool,
    validation: FieldValidation,
}

impl Call {
    /// The object that the target of the call names.
    fn resource(&self) -> &Resource {
        &self.target.resource
    }

    fn current(&self) -> Option<Arc<Value>> {
        self.cluster.store.get(&self.target.resource.storage, self.target.namespace_key(), self.target.name_key())
    }

    fn not_found(&self) -> Rejection {
        Rejection::not_found(&self.resource().in_texts(), self.target.name_key())
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            cluster: &self.cluster,
            resource: &self.target.resource,
            namespace: self.target.namespace_key(),
            subresource: self.target.subresource.as_deref(),
            user: &self.caller.user,
            manager: &self.manager,
            dry_run: self.dry_run,
            validation: self.validation,
            warnings: Vec::new(),
        }
    }

    /// An object in the form that the client accepts.
    fn answer(&self, code: StatusCode, object: &Value, warnings: &[String]) -> Response {
        let body = match self.form {
            Form::Table => table::one(self.resource(), object, &self.options),
            Form::Metadata => partial(object),
            Form::Object | Form::Aggregated => shown(self.resource(), object),
        };
        warn(reply(code, &body), warnings)
    }
}

/// Every path that is not discovery.
pub(crate) async fn dispatch(State(cluster): State<Arc<Cluster>>, request: Request) -> Response {
    match route(cluster, request).await {
        Ok(response) => response,
        Err(rejection) => rejection.into_response(),
    }
}

async fn route(cluster: Arc<Cluster>, request: Request) -> Result<Response, Rejection> {
    let path = segments(request.uri().path());
    let (group, version, rest) = match path.as_slice() {
        [root, version, rest @ ..] if root == "api" => ("", version, rest),
        [root, group, version, rest @ ..] if root == "apis" => (group.as_str(), version, rest),
        _ => return Err(Rejection::no_such_path()),
    };
    if let Some(router) = cluster.aggregated.find(group, version) {
        return Ok(aggregation::hand_over(router, request).await);
    }
    if rest.is_empty() {
        return discovery::kinds(&cluster, group, version);
    }
    let target = Target::find(&cluster.registry, group, version, rest)?;
    let options = Options::of(request.uri())?;
    if matches!(target.subresource.as_deref(), Some("exec" | "attach" | "portforward")) {
        return proxy::stream(&cluster, &target, &options, request).await;
    }
    if target.subresource.as_deref() == Some("log") && request.method() == Method::GET {
        return proxy::log(&cluster, &target, &options).await;
    }
    let (parts, body) = request.into_parts();
    let Some(caller) = parts.extensions.get::<Arc<Caller>>().cloned() else { return Err(Rejection::unauthorized()) };
    let call = Call {
        form: Form::accepted(&parts.headers)?,
        manager: manager(&options, &parts.headers),
        dry_run: options.dry_run()?,
        validation: options.field_validation()?,
        cluster,
        target,
        options,
        headers: parts.headers,
        caller,
    };
    let body = read_body(body).await?;
    verb(call, &parts.method, body)
}

async fn read_body(body: Body) -> Result<Bytes, Rejection> {
    axum::body::to_bytes(body, LARGEST_BODY)
        .await
        .map_err(|error| Rejection::bad_request(format!("cannot read the request's body: {error}")))
}

fn verb(call: Call, method: &Method, body: Bytes) -> Result<Response, Rejection> {
    if call.resource().verbs == Verbs::Create {
        return if method == Method::POST {
            questions::answer(&call, &body)
        } else {
            Err(Rejection::method_not_allowed())
        };
    }
    let named = call.target.name.is_some();
    match (method.as_str(), call.target.subresource.as_deref(), named) {
        ("GET", None, false) if call.options.on("watch") => watch::open(call),
        ("GET", None, false) => read::list(&call),
        ("GET", Some("scale"), true) => scale::get(&call),
        ("GET", None | Some("status" | "ephemeralcontainers"), true) => read::get(&call),
        ("POST", None, false) => create::create(&call, &body),
        ("POST", Some("binding"), true) => pods::bind(&call, &body),
        ("POST", Some("eviction"), true) => pods::evict(&call, &body),
        ("POST", Some("token"), true) => questions::token(&call, &body),
        ("PUT" | "PATCH", Some("scale"), true) => scale::change(&call, method, &body),
        ("PUT", None | Some("status" | "finalize" | "ephemeralcontainers"), true) => update::replace(&call, &body),
        ("PATCH", None | Some("status" | "ephemeralcontainers"), true) => update::patch(&call, &body),
        ("DELETE", None, true) => delete::one(&call, &body),
        ("DELETE", None, false) => delete::collection(&call, &body),
        _ => Err(Rejection::method_not_allowed()),
    }
}
