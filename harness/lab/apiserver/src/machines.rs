//! `subresources.kubevirt.io`: what is done to virtual machines and not stored, as KubeVirt's API server does it.
//!
//! The console, and pausing, are the node's business: they go through the kubelet of the node that runs the instance. What
//! starts, stops and moves machines is written into their objects, for controllers to act on.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::identity::ADMIN;
use crate::json::{list, object, text};
use crate::proxy;
use crate::request::FieldValidation;
use crate::resources::{Resource, group_version};
use crate::respond::reply;
use crate::server::Cluster;
use crate::status::{GroupResource, Rejection};
use crate::write::{Proposed, Writer};

/// The group.
pub(crate) const GROUP: &str = "subresources.kubevirt.io";
/// Its version.
pub(crate) const VERSION: &str = "v1";
/// The group of the objects.
const OBJECTS: &str = "kubevirt.io";
const INSTANCES: &str = "virtualmachineinstances";
const MACHINES: &str = "virtualmachines";

/// Plural, subresource, verb.
const ALL: [(&str, &str, &str); 7] = [
    (INSTANCES, "console", "get"),
    (INSTANCES, "pause", "update"),
    (INSTANCES, "unpause", "update"),
    (MACHINES, "start", "update"),
    (MACHINES, "stop", "update"),
    (MACHINES, "restart", "update"),
    (MACHINES, "migrate", "update"),
];

/// Whether there are virtual machines at all.
pub(crate) fn served(cluster: &Cluster) -> bool {
    cluster.registry.find(OBJECTS, VERSION, INSTANCES).is_some()
}

/// The group in aggregated discovery: parents without verbs of their own.
pub(crate) fn aggregated() -> Vec<Value> {
    let none = json!({"group": "", "version": "", "kind": ""});
    [INSTANCES, MACHINES]
        .map(|plural| {
            let below = ALL.iter().filter(|(parent, ..)| *parent == plural);
            let below: Vec<Value> = below
                .map(|(_, name, verb)| json!({"subresource": name, "responseKind": none, "verbs": [verb]}))
                .collect();
            json!({
                "resource": plural, "responseKind": none, "scope": "Namespaced", "singularResource": "",
                "verbs": [], "subresources": below,
            })
        })
        .into()
}

fn kinds() -> Response {
    let resources: Vec<Value> = ALL
        .iter()
        .map(|(plural, name, verb)| {
            json!({
                "name": format!("{plural}/{name}"), "singularName": "", "namespaced": true, "kind": "", "verbs": [verb],
            })
        })
        .collect();
    let body = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(GROUP, VERSION),
        "resources": resources,
    });
    reply(StatusCode::OK, &body)
}

/// An object and what shall be done with it.
struct Task<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    name: &'a str,
}

/// Every path below the group.
pub(crate) async fn handle(
    cluster: &Cluster,
    version: &str,
    rest: &[String],
    request: Request,
) -> Result<Response, Rejection> {
    if version != VERSION || !served(cluster) {
        return Err(Rejection::no_such_path());
    }
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (namespace, plural, name, action) = match rest.as_slice() {
        [] => return Ok(kinds()),
        ["namespaces", namespace, plural, name, action] => (*namespace, *plural, *name, *action),
        _ => return Err(Rejection::no_such_path()),
    };
    let Some((_, _, verb)) = ALL.iter().find(|(parent, sub, _)| *parent == plural && *sub == action) else {
        return Err(Rejection::no_such_path());
    };
    let method = if *verb == "get" { Method::GET } else { Method::PUT };
    if *request.method() != method {
        return Err(Rejection::method_not_allowed());
    }
    let task = Task { cluster, namespace, name };
    match action {
        "console" => return task.console(request).await,
        "pause" | "unpause" => task.pause(action).await?,
        "start" => task.start()?,
        "stop" => task.stop()?,
        "restart" => task.restart()?,
        _ => task.migrate()?,
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

impl Task<'_> {
    fn resource(&self, plural: &str) -> Result<Arc<Resource>, Rejection> {
        self.cluster.registry.find(OBJECTS, VERSION, plural).ok_or_else(Rejection::no_such_path)
    }

    fn find(&self, plural: &'static str) -> Option<Arc<Value>> {
        let resource = self.resource(plural).ok()?;
        self.cluster.store.get(&resource.storage, self.namespace, self.name)
    }

    fn existing(&self, plural: &'static str) -> Result<Arc<Value>, Rejection> {
        let texts = GroupResource { group: OBJECTS, resource: plural };
        self.find(plural).ok_or_else(|| Rejection::not_found(&texts, self.name))
    }

    fn conflict(&self, plural: &'static str, why: &str) -> Rejection {
        Rejection::conflict(&GroupResource { group: OBJECTS, resource: plural }, self.name, why)
    }

    /// The running instance's kubelet, and the path of an action there.
    fn place(&self, action: &str) -> Result<(proxy::Place, String), Rejection> {
        let instance = self.existing(INSTANCES)?;
        let (phase, node) = (text(&instance, &["status", "phase"]), text(&instance, &["status", "nodeName"]));
        if phase != "Running" || node.is_empty() {
            let why = format!(
                "Unable to connect to VirtualMachineInstance because phase is {} instead of Running",
                if phase.is_empty() { "Pending" } else { phase }
            );
            return Err(self.conflict(INSTANCES, &why));
        }
        let (namespace, name) = (proxy::encode(self.namespace), proxy::encode(self.name));
        let path = format!("/v1/namespaces/{namespace}/virtualmachineinstances/{name}/{action}");
        Ok((proxy::of_node(self.cluster, node)?, path))
    }

    async fn console(&self, request: Request) -> Result<Response, Rejection> {
        let (place, path) = self.place("console")?;
        proxy::upgrade(self.cluster, &place, &path, request).await
    }

    async fn pause(&self, action: &str) -> Result<(), Rejection> {
        let (place, path) = self.place(action)?;
        proxy::ask(self.cluster, &place, &Method::PUT, &path).await
    }

    /// When the machine runs, whichever field says so.
    fn strategy(machine: &Value) -> &str {
        match (text(machine, &["spec", "runStrategy"]), &machine["spec"]["running"]) {
            ("", Value::Bool(true)) => "Always",
            ("", _) => "Halted",
            (strategy, _) => strategy,
        }
    }

    fn start(&self) -> Result<(), Rejection> {
        let machine = self.existing(MACHINES)?;
        let live = self.find(INSTANCES).is_some_and(|instance| !is_final(&instance));
        match Self::strategy(&machine) {
            "Always" => Err(self.conflict(MACHINES, "Always does not support manual start requests")),
            _ if live => Err(self.conflict(MACHINES, "VM is already running")),
            "Halted" => self.run(true),
            _ => self.request(&[("Start", None)]),
        }
    }

    fn stop(&self) -> Result<(), Rejection> {
        let machine = self.existing(MACHINES)?;
        match (Self::strategy(&machine), self.find(INSTANCES)) {
            ("Halted", None) => Err(self.conflict(MACHINES, "VM is not running")),
            ("Halted" | "Always", _) => self.run(false),
            (_, None) => Err(self.conflict(MACHINES, "VM is not running")),
            (_, Some(instance)) => self.request(&[("Stop", Some(text(&instance, &["metadata", "uid"])))]),
        }
    }

    fn restart(&self) -> Result<(), Rejection> {
        let machine = self.existing(MACHINES)?;
        let Some(instance) = self.find(INSTANCES) else {
            return Err(self.conflict(MACHINES, "VM is not running"));
        };
        if Self::strategy(&machine) == "Halted" {
            return Err(self.conflict(MACHINES, "Halted does not support manual restart requests"));
        }
        self.request(&[("Stop", Some(text(&instance, &["metadata", "uid"]))), ("Start", None)])
    }

    fn migrate(&self) -> Result<(), Rejection> {
        self.existing(MACHINES)?;
        let running = self.find(INSTANCES).is_some_and(|instance| text(&instance, &["status", "phase"]) == "Running");
        if !running {
            return Err(self.conflict(MACHINES, "VM is not running"));
        }
        let resource = self.resource("virtualmachineinstancemigrations")?;
        let migration = json!({
            "apiVersion": group_version(OBJECTS, VERSION), "kind": resource.kind,
            "metadata": {"generateName": "kubevirt-migrate-vm-", "namespace": self.namespace},
            "spec": {"vmiName": self.name},
        });
        self.writer(&resource, None).create(migration).map(drop)
    }

    /// Says in the machine's spec that it runs, or does not.
    fn run(&self, runs: bool) -> Result<(), Rejection> {
        self.change(None, |machine| {
            let spec = object(machine, "spec");
            if spec.contains_key("running") {
                spec.insert("running".into(), runs.into());
            } else {
                spec.insert("runStrategy".into(), if runs { "Always" } else { "Halted" }.into());
            }
        })
    }

    /// Asks the machine's controller for something, in the order given.
    fn request(&self, actions: &[(&str, Option<&str>)]) -> Result<(), Rejection> {
        if !list(&*self.existing(MACHINES)?, &["status", "stateChangeRequests"]).is_empty() {
            let why = "unable to complete request: stop/start already underway";
            return Err(self.conflict(MACHINES, why));
        }
        let requests: Vec<Value> = actions
            .iter()
            .map(|(action, uid)| match uid {
                Some(uid) => json!({"action": action, "uid": uid}),
                None => json!({"action": action}),
            })
            .collect();
        self.change(Some("status"), |machine| {
            object(machine, "status").insert("stateChangeRequests".into(), requests.clone().into());
        })
    }

    fn change(&self, subresource: Option<&str>, change: impl Fn(&mut Value)) -> Result<(), Rejection> {
        let resource = self.resource(MACHINES)?;
        let changed = self.writer(&resource, subresource).update(self.name, |current| {
            let mut next = current.clone();
            change(&mut next);
            Ok(Proposed::change(next))
        });
        changed.map(drop)
    }

    fn writer<'a>(&'a self, resource: &'a Resource, subresource: Option<&'a str>) -> Writer<'a> {
        Writer {
            cluster: self.cluster,
            resource,
            namespace: self.namespace,
            subresource,
            user: &ADMIN,
            manager: "virt-api",
            dry_run: false,
            validation: FieldValidation::Ignore,
            warnings: Vec::new(),
        }
    }
}

fn is_final(instance: &Value) -> bool {
    matches!(text(instance, &["status", "phase"]), "Succeeded" | "Failed")
}
