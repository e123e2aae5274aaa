//! Applies, reads and deletes objects of any kind.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Request, ValidationDirective,
};
use kube::runtime::wait::{self, await_condition};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use udn_model::cell::ObjectRef;
use udn_model::naming::Naming;

use crate::error::{Error, innermost, right_to_watch};
use crate::kinds::Kinds;
use crate::names::FIELD_MANAGER;

/// The API server, by any kind.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) client: Client,
    kinds: Arc<Kinds>,
}

/// An object by its real names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Real {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Real {
    /// From an object's names in a world.
    pub(crate) fn of(object: &ObjectRef, naming: &Naming) -> Self {
        let (namespace, name) = match &object.namespace {
            // A CUDN's definitions have its name.
            Some(namespace) if object.kind == "NetworkAttachmentDefinition" => {
                (Some(naming.real(namespace)), naming.attachment(&object.name))
            }
            Some(namespace) => (Some(naming.real(namespace)), object.name.clone()),
            None => (None, naming.real(&object.name)),
        };
        Self { api_version: object.api_version.clone(), kind: object.kind.clone(), namespace, name }
    }

    /// From a manifest that has its real names.
    ///
    /// # Errors
    /// The manifest lacks one.
    pub(crate) fn of_manifest(manifest: &Value) -> Result<Self, Error> {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind");
        let name = text("/metadata/name");
        match (text("/apiVersion"), kind, name) {
            (Some(api_version), Some(kind), Some(name)) => {
                Ok(Self { api_version, kind, namespace: text("/metadata/namespace"), name })
            }
            (_, kind, name) => Err(Error::Manifest {
                object: format!("{} {}", kind.unwrap_or_else(|| "?".into()), name.unwrap_or_else(|| "?".into())),
                problem: "apiVersion, kind and metadata.name must be texts".into(),
            }),
        }
    }
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, kinds: Arc::default() }
    }

    /// The API of an object's kind in its namespace.
    ///
    /// # Errors
    /// The kind is not served.
    pub(crate) async fn api(&self, object: &Real) -> Result<Api<DynamicObject>, Error> {
        let served = self.kinds.find(&self.client, &object.api_version, &object.kind).await?;
        Ok(match (&object.namespace, served.namespaced) {
            (Some(namespace), true) => Api::namespaced_with(self.client.clone(), namespace, &served.resource),
            (None, true) => {
                return Err(Error::Manifest { object: object.to_string(), problem: "it needs a namespace".into() });
            }
            (_, false) => Api::all_with(self.client.clone(), &served.resource),
        })
    }

    /// Creates or changes an object by server-side apply; fields that its kind does not have are refused.
    ///
    /// # Errors
    /// The API server's refusal, or why it could not be asked.
    pub(crate) async fn apply(&self, manifest: &Value) -> Result<DynamicObject, Error> {
        let object = Real::of_manifest(manifest)?;
        let api = self.api(&object).await?;
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.field_validation = Some(ValidationDirective::Strict);
        api.patch(&object.name, &params, &Patch::Apply(manifest))
            .await
            .map_err(|error| Error::api(format!("apply {object}"), error))
    }

    /// Asks whether an object would be created; fields that its kind does not have are refused. A plain creation: in a
    /// server-side apply, lists with keys are read before the kind's own rules are asked, and refused for other reasons.
    ///
    /// # Errors
    /// The API server's refusal, or why it could not be asked.
    pub(crate) async fn try_create(&self, manifest: &Value) -> Result<(), Error> {
        let object = Real::of_manifest(manifest)?;
        let api = self.api(&object).await?;
        let attempted = || format!("create {object} in a dry run");
        let unsendable = |problem: String| Error::Manifest { object: object.to_string(), problem };
        let params = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
        let body = serde_json::to_vec(manifest).map_err(|error| unsendable(error.to_string()))?;
        let mut request =
            Request::new(api.resource_url()).create(&params, body).map_err(|error| unsendable(error.to_string()))?;
        // kube's parameters of a creation lack this one.
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().map_err(|error: http::uri::InvalidUri| unsendable(error.to_string()))?;
        let answer = self.client.request::<DynamicObject>(request).await;
        answer.map(drop).map_err(|error| Error::api(attempted(), error))
    }

    /// Asks whether an object that is there would be changed, by a merge of the manifest into it.
    ///
    /// # Errors
    /// The API server's refusal, or why it could not be asked.
    pub(crate) async fn try_change(&self, manifest: &Value) -> Result<(), Error> {
        let object = Real::of_manifest(manifest)?;
        let api = self.api(&object).await?;
        let params = PatchParams {
            dry_run: true,
            field_manager: Some(FIELD_MANAGER.into()),
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::default()
        };
        let answer = api.patch(&object.name, &params, &Patch::Merge(manifest)).await;
        answer.map(drop).map_err(|error| Error::api(format!("change {object} in a dry run"), error))
    }

    /// Sets or removes one label or annotation.
    ///
    /// # Errors
    /// The API server's refusal, or why it could not be asked.
    pub(crate) async fn set(&self, object: &Real, field: &str, key: &str, value: Option<&str>) -> Result<(), Error> {
        let api = self.api(object).await?;
        let patch = json!({ "metadata": { field: { key: value } } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let attempted = || format!("set {field} {key} of {object}");
        api.patch(&object.name, &params, &Patch::Merge(&patch))
            .await
            .map_err(|error| Error::api(attempted(), error))?;
        Ok(())
    }

    /// Merges fields into an object.
    ///
    /// # Errors
    /// The API server's refusal, or why it could not be asked.
    pub(crate) async fn merge(&self, object: &Real, fields: &Value) -> Result<(), Error> {
        let api = self.api(object).await?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let merged = api.patch(&object.name, &params, &Patch::Merge(fields)).await;
        merged.map(drop).map_err(|error| Error::api(format!("change {object}"), error))
    }

    /// The object as it is; `None` where there is none.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub(crate) async fn get(&self, object: &Real) -> Result<Option<Value>, Error> {
        let found = match self.api(object).await?.get_opt(&object.name).await {
            Ok(found) => found,
            Err(error) => return Err(Error::api(format!("get {object}"), error)),
        };
        found.map(|found| serde_json::to_value(found).map_err(|error| unreadable(object, &error))).transpose()
    }

    /// Asks for deletion. Fine where there is none.
    ///
    /// # Errors
    /// The API server's refusal, or why it could not be asked.
    pub(crate) async fn delete(&self, object: &Real) -> Result<(), Error> {
        let api = self.api(object).await?;
        match api.delete(&object.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::api(format!("delete {object}"), error)),
        }
    }

    /// Waits until the object satisfies a condition.
    ///
    /// # Errors
    /// It does not within the deadline, with what `describe` says of it then.
    pub(crate) async fn wait(
        &self,
        object: &Real,
        awaited: &str,
        deadline: Duration,
        holds: impl Fn(Option<&DynamicObject>) -> bool + Send + Sync,
        describe: impl Fn(Option<&Value>) -> String + Send,
    ) -> Result<(), Error> {
        let api = self.api(object).await?;
        let wait = await_condition(api, &object.name, |object: Option<&DynamicObject>| holds(object));
        match timeout(deadline, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unwatchable(object, &error)),
            Err(_) => {
                let last = self.get(object).await.ok().flatten();
                let last = describe(last.as_ref());
                Err(Error::Deadline { awaited: format!("{object} {awaited}"), after: deadline, last })
            }
        }
    }

    /// Waits until the object is gone.
    ///
    /// # Errors
    /// It is not within the deadline.
    pub(crate) async fn wait_gone(&self, object: &Real, deadline: Duration) -> Result<(), Error> {
        let Some(found) = self.get(object).await? else { return Ok(()) };
        let uid = found.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let gone = move |now: Option<&DynamicObject>| now.is_none_or(|now| now.uid().as_deref() != Some(&uid));
        self.wait(object, "to be gone", deadline, gone, |last| {
            let finalizers = last.and_then(|last| last.pointer("/metadata/finalizers")).map(ToString::to_string);
            format!("finalizers: {}", finalizers.unwrap_or_else(|| "none".into()))
        })
        .await
    }

    /// All objects of a kind that a label selector selects, in all namespaces or in one.
    ///
    /// # Errors
    /// The kind is not served, or the API server cannot be asked.
    pub(crate) async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> Result<Vec<DynamicObject>, Error> {
        let served = self.kinds.find(&self.client, api_version, kind).await?;
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &served.resource),
            None => Api::all_with(self.client.clone(), &served.resource),
        };
        let params = selector.map_or_else(ListParams::default, |selector| ListParams::default().labels(selector));
        let list = api.list(&params).await.map_err(|error| Error::api(format!("list {kind}"), error))?;
        Ok(list.items)
    }

    /// Events about an object, oldest first.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub(crate) async fn events(&self, object: &Real) -> Result<Vec<Value>, Error> {
        // Events about cluster-scoped objects are in `default`.
        let namespace = match (object.kind.as_str(), &object.namespace) {
            (_, Some(namespace)) => namespace.clone(),
            ("Namespace", None) => object.name.clone(),
            _ => "default".into(),
        };
        let mut events: Vec<Value> = Vec::new();
        for event in self.list("v1", "Event", Some(&namespace), None).await? {
            let event = serde_json::to_value(event).map_err(|error| unreadable(object, &error))?;
            let about = &event["involvedObject"];
            if about["kind"] == object.kind.as_str() && about["name"] == object.name.as_str() {
                events.push(event);
            }
        }
        events.sort_by_key(|event| event["lastTimestamp"].as_str().unwrap_or_default().to_owned());
        Ok(events)
    }
}

fn unwatchable(object: &Real, error: &wait::Error) -> Error {
    let attempted = format!("watch {object}");
    let wait::Error::ProbeFailed(failed) = error;
    match right_to_watch(failed) {
        Some(why) => Error::MissingRight { attempted, why: why.to_owned() },
        None => Error::Api { attempted, why: innermost(error), code: 0 },
    }
}

fn unreadable(object: &Real, error: &serde_json::Error) -> Error {
    Error::Api { attempted: format!("read {object}"), why: error.to_string(), code: 0 }
}
