//! What is done to virtual machines and not stored: their spec and status say so afterwards.

use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{ApiResource, Discovery};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use udn_lab_apiserver::testing::TestServer;

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kubevirt.io", "v1", kind));
    Api::default_namespaced_with(client.clone(), &resource)
}

async fn kinds(client: &Client) {
    let definitions = Api::all(client.clone());
    for definition in udn_api::kubevirt::crds() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
}

async fn create(client: &Client, kind: &str, spec: Value) {
    let object = json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"name": "db"}, "spec": spec});
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api(client, kind).create(&PostParams::default(), &object).await.unwrap();
}

async fn put(client: &Client, path: &str) -> Result<u16, String> {
    let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/default/{path}");
    let answer = client.send(http::Request::put(path).body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let text = String::from_utf8_lossy(&answer.into_body().collect_bytes().await.unwrap()).into_owned();
    if status < 300 { Ok(status) } else { Err(format!("{status} {text}")) }
}

#[tokio::test]
async fn discovery_tells_them_once_there_are_machines() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    let has = async || {
        let plain = Discovery::new(client.clone()).run().await.unwrap().has_group("subresources.kubevirt.io");
        let whole = Discovery::new(client.clone()).run_aggregated().await.unwrap();
        (plain, whole.has_group("subresources.kubevirt.io"))
    };
    assert_eq!(has().await, (false, false));
    kinds(&client).await;
    assert_eq!(has().await, (true, true));
    let path = "/apis/subresources.kubevirt.io/v1";
    let list: Value = client.request(http::Request::get(path).body(Vec::new()).unwrap()).await.unwrap();
    let names: Vec<_> = list["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"virtualmachineinstances/console") && names.contains(&"virtualmachines/migrate"));
}

#[tokio::test]
async fn start_stop_and_restart_change_what_is_wanted() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    kinds(&client).await;
    let template = json!({"spec": {"domain": {"devices": {}}}});
    create(&client, "VirtualMachine", json!({"runStrategy": "Halted", "template": template})).await;
    let machines = api(&client, "VirtualMachine");
    let strategy = async || machines.get("db").await.unwrap().data["spec"]["runStrategy"].clone();
    assert!(put(&client, "virtualmachines/db/stop").await.unwrap_err().contains("not running"));
    assert_eq!(put(&client, "virtualmachines/db/start").await, Ok(202));
    assert_eq!(strategy().await, "Always");
    assert!(put(&client, "virtualmachines/db/start").await.unwrap_err().contains("409"));
    assert!(put(&client, "virtualmachines/db/restart").await.unwrap_err().contains("not running"));
    assert!(put(&client, "virtualmachines/db/migrate").await.unwrap_err().contains("not running"));
    assert!(put(&client, "virtualmachines/other/start").await.unwrap_err().contains("404"));

    create(&client, "VirtualMachineInstance", json!({"domain": {"devices": {}}})).await;
    let instances = api(&client, "VirtualMachineInstance");
    assert!(put(&client, "virtualmachineinstances/db/pause").await.unwrap_err().contains("Pending instead of Running"));
    let running = Patch::Merge(json!({"status": {"phase": "Running", "nodeName": "nowhere"}}));
    let instance = instances.patch_status("db", &PatchParams::default(), &running).await.unwrap();
    assert_eq!(put(&client, "virtualmachines/db/restart").await, Ok(202));
    let requests = machines.get_status("db").await.unwrap().data["status"]["stateChangeRequests"].clone();
    assert_eq!(requests, json!([{"action": "Stop", "uid": instance.uid()}, {"action": "Start"}]));
    assert!(put(&client, "virtualmachines/db/restart").await.unwrap_err().contains("already underway"));
    assert_eq!(put(&client, "virtualmachines/db/migrate").await, Ok(202));
    let migrations = api(&client, "VirtualMachineInstanceMigration").list(&ListParams::default()).await.unwrap();
    assert_eq!(migrations.items[0].data["spec"]["vmiName"], "db");
    assert!(migrations.items[0].name_any().starts_with("kubevirt-migrate-vm-"));
    assert_eq!(put(&client, "virtualmachines/db/stop").await, Ok(202));
    assert_eq!(strategy().await, "Halted");
}

#[tokio::test]
async fn a_machine_says_either_way_when_it_runs_but_not_both() {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    kinds(&client).await;
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
