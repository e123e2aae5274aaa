//! What is done to virtual machines and not stored, behind an API server, with no guest: their spec and status say so
//! afterwards. Consoles, and pausing of what runs, are tested with guests, in the lab's tests.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // helpers have no `#[test]`

use std::collections::HashMap;

use axum::Router;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{ApiResource, Discovery};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tower::ServiceExt;
use udn_lab_apiserver::testing::TestServer;
use udn_lab_machines::{API_GROUP, API_VERSION, Machines, Options};

/// An API server that has the machines' group; no controller runs.
async fn start() -> (TestServer, Client) {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let definitions = Api::all(client.clone());
    for definition in udn_api::kubevirt::crds() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    server.server.aggregate(API_GROUP, API_VERSION, machines(&client));
    (server, client)
}

fn machines(client: &Client) -> Router {
    let options = Options { nodes: HashMap::new(), folder: "/nowhere".into(), courier: "/nowhere".into() };
    Machines::start(client.clone(), options).api()
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kubevirt.io", "v1", kind));
    Api::default_namespaced_with(client.clone(), &resource)
}

async fn create(client: &Client, kind: &str, spec: Value) {
    let object = json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"name": "db"}, "spec": spec});
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api(client, kind).create(&PostParams::default(), &object).await.unwrap();
}

async fn one_machine(client: &Client, strategy: &str) {
    let template = json!({"spec": {"domain": {"devices": {}}}});
    create(client, "VirtualMachine", json!({"runStrategy": strategy, "template": template, "unknown": {"kept": true}}))
        .await;
}

/// An instance `db` whose status says that it runs.
async fn instance(client: &Client) -> DynamicObject {
    create(client, "VirtualMachineInstance", json!({"domain": {"devices": {}}})).await;
    let running = Patch::Merge(json!({"status": {"phase": "Running", "nodeName": "nowhere"}}));
    api(client, "VirtualMachineInstance").patch_status("db", &PatchParams::default(), &running).await.unwrap()
}

async fn ask(client: &Client, method: &str, path: &str) -> (u16, Value) {
    let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/default/{path}");
    let request = http::Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await.unwrap();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
}

/// What a PUT was answered with, if it was not refused.
async fn put(client: &Client, path: &str) -> Result<u16, Value> {
    match ask(client, "PUT", path).await {
        (status @ 200..300, _) => Ok(status),
        (status, refusal) => {
            assert_eq!(refusal["code"], status, "{refusal}");
            Err(refusal)
        }
    }
}

/// Why a PUT is a conflict.
async fn conflict(client: &Client, path: &str) -> String {
    let refusal = put(client, path).await.unwrap_err();
    assert_eq!((&refusal["code"], &refusal["reason"]), (&json!(409), &json!("Conflict")), "{refusal}");
    refusal["message"].as_str().unwrap().rsplit_once(": ").unwrap().1.to_owned()
}

#[tokio::test]
async fn discovery_tells_what_can_be_done() {
    let (_server, client) = start().await;
    for discovery in [Discovery::new(client.clone()).run().await, Discovery::new(client.clone()).run_aggregated().await]
    {
        assert!(discovery.unwrap().has_group("subresources.kubevirt.io"));
    }
    let path = "/apis/subresources.kubevirt.io/v1";
    let list: Value = client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
    assert_eq!(
        (&list["kind"], &list["groupVersion"]),
        (&json!("APIResourceList"), &json!("subresources.kubevirt.io/v1"))
    );
    let names: Vec<_> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["verbs"][0].as_str().unwrap(), one["name"].as_str().unwrap()))
        .collect();
    let expected = [
        "get virtualmachineinstances/console",
        "update virtualmachineinstances/pause",
        "update virtualmachineinstances/unpause",
        "update virtualmachines/start",
        "update virtualmachines/stop",
        "update virtualmachines/restart",
        "update virtualmachines/migrate",
    ];
    assert_eq!(names, expected);
}

/// As Kubernetes' aggregator asks: without an API server in between.
#[tokio::test]
async fn an_aggregator_is_told_of_the_group() {
    let server = TestServer::start().await.unwrap();
    let router = machines(&server.client().await.unwrap());
    let ask = async |method: &str, path: &str| {
        let request = http::Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        // It would take another type for discovery in one document.
        assert_eq!(parts.headers["content-type"], "application/json");
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    let version = json!({"groupVersion": "subresources.kubevirt.io/v1", "version": "v1"});
    let group = json!({"name": "subresources.kubevirt.io", "versions": [version], "preferredVersion": version});
    let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
    assert_eq!(ask("GET", "/apis").await, (200, groups));
    let mut alone = group;
    alone["kind"] = "APIGroup".into();
    alone["apiVersion"] = "v1".into();
    assert_eq!(ask("GET", "/apis/subresources.kubevirt.io").await, (200, alone));
    assert_eq!(ask("GET", "/apis/subresources.kubevirt.io/v1").await.1["kind"], "APIResourceList");
    let (status, refusal) = ask("POST", "/apis").await;
    assert_eq!((status, &refusal["reason"]), (405, &json!("MethodNotAllowed")));
}

#[tokio::test]
async fn refusals_are_those_of_kubernetes() {
    let (_server, client) = start().await;
    let missing = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
        "message": "virtualmachines.kubevirt.io \"other\" not found",
        "details": {"name": "other", "group": "kubevirt.io", "kind": "virtualmachines"},
    });
    assert_eq!(put(&client, "virtualmachines/other/start").await, Err(missing));
    one_machine(&client, "Always").await;
    let conflict = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
        "message": "Operation cannot be fulfilled on virtualmachines.kubevirt.io \"db\": \
                    Always does not support manual start requests",
        "details": {"name": "db", "group": "kubevirt.io", "kind": "virtualmachines"},
    });
    assert_eq!(put(&client, "virtualmachines/db/start").await, Err(conflict));
    for (method, path, code, reason) in [
        ("PUT", "virtualmachines/db/fly", 404, "NotFound"),
        ("PUT", "virtualmachines/db/pause", 404, "NotFound"),
        ("PUT", "virtualmachines/db", 404, "NotFound"),
        ("GET", "virtualmachines/db/start", 405, "MethodNotAllowed"),
        ("PUT", "virtualmachineinstances/db/console", 405, "MethodNotAllowed"),
        ("GET", "virtualmachineinstances/db/console", 404, "NotFound"),
        ("PUT", "virtualmachineinstances/db/pause", 404, "NotFound"),
    ] {
        let (status, body) = ask(&client, method, path).await;
        assert_eq!(
            (status, &body["reason"], &body["kind"]),
            (code, &json!(reason), &json!("Status")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_console_or_pause_is_refused_where_nothing_runs() {
    let (_server, client) = start().await;
    create(&client, "VirtualMachineInstance", json!({"domain": {"devices": {}}})).await;
    let why = "Unable to connect to VirtualMachineInstance because phase is Pending instead of Running";
    assert_eq!(conflict(&client, "virtualmachineinstances/db/pause").await, why);
    assert_eq!(ask(&client, "GET", "virtualmachineinstances/db/console").await.0, 409);
    let running = Patch::Merge(json!({"status": {"phase": "Running", "nodeName": "nowhere"}}));
    let instances = api(&client, "VirtualMachineInstance");
    instances.patch_status("db", &PatchParams::default(), &running).await.unwrap();
    for action in ["pause", "unpause"] {
        let refusal = put(&client, &format!("virtualmachineinstances/db/{action}")).await.unwrap_err();
        assert_eq!(refusal["code"], 404, "{refusal}");
        assert!(refusal["message"].as_str().unwrap().contains("no node of this lab runs default/db"), "{refusal}");
    }
}

#[tokio::test]
async fn start_stop_and_restart_change_what_is_wanted() {
    let (_server, client) = start().await;
    one_machine(&client, "Halted").await;
    let machines = api(&client, "VirtualMachine");
    let strategy = async || machines.get("db").await.unwrap().data["spec"]["runStrategy"].clone();
    assert_eq!(conflict(&client, "virtualmachines/db/stop").await, "VM is not running");
    assert_eq!(put(&client, "virtualmachines/db/start").await, Ok(202));
    assert_eq!(strategy().await, "Always");
    let always = "Always does not support manual start requests";
    assert_eq!(conflict(&client, "virtualmachines/db/start").await, always);
    assert_eq!(conflict(&client, "virtualmachines/db/restart").await, "VM is not running");
    assert_eq!(conflict(&client, "virtualmachines/db/migrate").await, "VM is not running");

    let instance = instance(&client).await;
    assert_eq!(put(&client, "virtualmachines/db/restart").await, Ok(202));
    let requests = machines.get_status("db").await.unwrap().data["status"]["stateChangeRequests"].clone();
    assert_eq!(requests, json!([{"action": "Stop", "uid": instance.uid()}, {"action": "Start"}]));
    let underway = "stop/start already underway";
    assert_eq!(conflict(&client, "virtualmachines/db/restart").await, underway);
    assert_eq!(put(&client, "virtualmachines/db/migrate").await, Ok(202));
    let migrations = api(&client, "VirtualMachineInstanceMigration").list(&ListParams::default()).await.unwrap();
    assert_eq!(migrations.items[0].data["spec"]["vmiName"], "db");
    assert!(migrations.items[0].name_any().starts_with("kubevirt-migrate-vm-"));
    assert_eq!(put(&client, "virtualmachines/db/stop").await, Ok(202));
    assert_eq!(strategy().await, "Halted");
    let machine = machines.get("db").await.unwrap();
    assert_eq!(machine.data["spec"]["unknown"]["kept"], true, "a change took away what it does not know");
    assert!(machine.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("virt-api")));
}

#[tokio::test]
async fn a_machine_says_either_way_when_it_runs_but_not_both() {
    let (_server, client) = start().await;
    let template = json!({"spec": {"domain": {"devices": {}}}});
    create(&client, "VirtualMachine", json!({"running": false, "template": template})).await;
    assert_eq!(put(&client, "virtualmachines/db/start").await, Ok(202));
    assert_eq!(api(&client, "VirtualMachine").get("db").await.unwrap().data["spec"]["running"], true);
    let both = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "two"},
        "spec": {"running": true, "runStrategy": "Always", "template": template},
    });
    let both: DynamicObject = serde_json::from_value(both).unwrap();
    let refused = api(&client, "VirtualMachine").create(&PostParams::default(), &both).await.unwrap_err();
    assert!(refused.to_string().contains("not both"), "{refused}");
}

/// Of requests at the same time one is written, and the others learn of it: none is written over another one.
#[tokio::test]
async fn changes_by_others_at_the_same_time_are_not_lost() {
    let (_server, client) = start().await;
    one_machine(&client, "Manual").await;
    let machines = api(&client, "VirtualMachine");
    for round in 0..20 {
        let reset = Patch::Merge(json!({"status": {"stateChangeRequests": null}}));
        machines.patch_status("db", &PatchParams::default(), &reset).await.unwrap();
        let label = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
        let parameters = PatchParams::default();
        let (one, two, other, labelled) = tokio::join!(
            put(&client, "virtualmachines/db/start"),
            put(&client, "virtualmachines/db/start"),
            put(&client, "virtualmachines/db/start"),
            machines.patch("db", &parameters, &label),
        );
        labelled.unwrap();
        let results = [one, two, other];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        for refusal in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(refusal["message"].as_str().unwrap().contains("already underway"), "{refusal}");
        }
        let requests = machines.get_status("db").await.unwrap().data["status"]["stateChangeRequests"].clone();
        assert_eq!(requests, json!([{"action": "Start"}]));
    }
}
