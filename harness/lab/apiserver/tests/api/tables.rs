//! Tables, as kubectl asks for them.

use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{from, scheduled, start};

async fn table(client: &kube::Client, path: &str) -> (Vec<String>, Vec<Vec<Value>>) {
    let request = Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    assert_eq!(table["kind"], "Table");
    let titles =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap().to_owned());
    let rows = table["rows"].as_array().unwrap().iter().map(|row| row["cells"].as_array().unwrap().clone());
    (titles.collect(), rows.collect())
}

#[tokio::test]
async fn pods() {
    let (_server, client) = start().await;
    let pods = scheduled(&client, "p").await;
    let status = json!({"status": {"phase": "Running", "podIPs": [{"ip": "10.244.1.5"}], "containerStatuses": [
        {"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 2, "state": {"running": {}}}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let (titles, rows) = table(&client, "/api/v1/namespaces/default/pods").await;
    assert_eq!(titles[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    assert_eq!(rows[0][..4], [json!("p"), json!("1/1"), json!("Running"), json!("2")]);
    assert_eq!(rows[0][5..7], [json!("10.244.1.5"), json!("ovn-worker")]);
}

#[tokio::test]
async fn nodes() {
    let (_server, client) = start().await;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}}});
    nodes.create(&PostParams::default(), &from(node)).await.unwrap();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]}});
    nodes.patch_status("n", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let (_, rows) = table(&client, "/api/v1/nodes").await;
    assert_eq!(rows[0][..3], [json!("n"), json!("Ready"), json!("control-plane")]);
    assert_eq!(rows[0][5], "172.18.0.2");
}

#[tokio::test]
async fn every_kind_has_as_many_cells_as_columns() {
    let (_server, client) = start().await;
    let put = async |path: &str, body: Value| {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).unwrap())
            .unwrap();
        client.request::<Value>(request).await.unwrap()
    };
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workload =
        json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let mut job_template = template.clone();
    job_template["spec"]["restartPolicy"] = "Never".into();
    let plain = json!({"metadata": {"name": "x"}});
    let spaced = "namespaces/default";
    let cases = [
        (format!("/api/v1/{spaced}/pods"), json!({"metadata": {"name": "x"}, "spec": template["spec"]})),
        (format!("/api/v1/{spaced}/services"), json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}]}})),
        (format!("/api/v1/{spaced}/configmaps"), plain.clone()),
        (format!("/api/v1/{spaced}/secrets"), plain.clone()),
        (format!("/api/v1/{spaced}/serviceaccounts"), plain.clone()),
        (format!("/api/v1/{spaced}/endpoints"), plain.clone()),
        (
            format!("/api/v1/{spaced}/events"),
            json!({"metadata": {"name": "x"}, "involvedObject": {"kind": "Pod", "name": "x"}}),
        ),
        ("/api/v1/nodes".into(), plain.clone()),
        (format!("/apis/apps/v1/{spaced}/deployments"), workload.clone()),
        (format!("/apis/apps/v1/{spaced}/replicasets"), workload.clone()),
        (format!("/apis/apps/v1/{spaced}/statefulsets"), workload.clone()),
        (format!("/apis/apps/v1/{spaced}/daemonsets"), workload.clone()),
        (format!("/apis/apps/v1/{spaced}/controllerrevisions"), json!({"metadata": {"name": "x"}, "revision": 1})),
        (
            format!("/apis/batch/v1/{spaced}/jobs"),
            json!({"metadata": {"name": "x"}, "spec": {"template": job_template}}),
        ),
        (
            format!("/apis/batch/v1/{spaced}/cronjobs"),
            json!({"metadata": {"name": "x"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": job_template}}}}),
        ),
        (
            format!("/apis/networking.k8s.io/v1/{spaced}/networkpolicies"),
            json!({"metadata": {"name": "x"}, "spec": {"podSelector": {}}}),
        ),
        (
            format!("/apis/discovery.k8s.io/v1/{spaced}/endpointslices"),
            json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (format!("/apis/coordination.k8s.io/v1/{spaced}/leases"), plain.clone()),
        (
            format!("/apis/policy/v1/{spaced}/poddisruptionbudgets"),
            json!({"metadata": {"name": "x"}, "spec": {"minAvailable": 1}}),
        ),
        (
            format!("/apis/rbac.authorization.k8s.io/v1/{spaced}/rolebindings"),
            json!({"metadata": {"name": "x"}, "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}}),
        ),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles".into(), json!({"metadata": {"name": "x:y"}})),
        ("/apis/storage.k8s.io/v1/storageclasses".into(), json!({"metadata": {"name": "x"}, "provisioner": "p"})),
    ];
    for (path, body) in cases {
        put(&path, body).await;
        let (titles, rows) = table(&client, &path).await;
        assert!(!rows.is_empty(), "{path}");
        for row in rows {
            assert_eq!(row.len(), titles.len(), "{path}: {titles:?} {row:?}");
        }
    }
}
