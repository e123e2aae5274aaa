//! kube-dns: a deployment of DNS servers and its service, as every cluster has them. What they answer the controllers
//! write to a file that the pods mount.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::runtime::wait::Condition;
use kube::{Api, Client};
use serde_json::json;
use udn_lab_sys::site::{EXTERNAL_V4, EXTERNAL_V6, Site};

use super::objects::{create_json, until};
use crate::error::Error;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";
/// Where the kubelets send pods (`/etc/resolv.conf`), and its IPv6 sister.
const ADDRESSES: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
/// The name of the external host.
pub(super) const EXTERNAL: &str = "external.lab.example";
/// Where the pods have the folder of the records.
const FOLDER: &str = "/etc/coredns";

/// The file that controllers write and DNS servers read.
pub(super) fn records(site: &Site) -> PathBuf {
    site.scratch.join("dns").join("records")
}

/// Creates all of it, and waits until a server answers.
pub(super) async fn start(client: &Client, records: &Path) -> Result<(), Error> {
    let hosts = format!("{EXTERNAL_V4} {EXTERNAL}\n{EXTERNAL_V6} {EXTERNAL}\n");
    let map = json!({"metadata": {"name": NAME}, "data": {"hosts": hosts}});
    create_json::<ConfigMap>(client, NAMESPACE, map).await?;
    create_json::<Service>(client, NAMESPACE, service()).await?;
    create_json::<Deployment>(client, NAMESPACE, deployment(records)).await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    until(&deployments, NAME, available(), format!("deployment {NAMESPACE}/{NAME} to be available")).await
}

fn service() -> serde_json::Value {
    json!({
        "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
        "spec": {
            "clusterIP": ADDRESSES[0], "clusterIPs": ADDRESSES, "ipFamilyPolicy": "RequireDualStack",
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

fn deployment(records: &Path) -> serde_json::Value {
    let labels = json!({"k8s-app": "kube-dns"});
    json!({
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "dnsPolicy": "Default", "enableServiceLinks": false, "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
                    "containers": [{
                        "name": NAME, "image": "registry.k8s.io/coredns/coredns:v1.12.1",
                        "args": ["--records", format!("{FOLDER}/records")],
                        "ports": [
                            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                        ],
                        "readinessProbe": {"tcpSocket": {"port": 53}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "records", "mountPath": FOLDER, "readOnly": true}],
                    }],
                    // The folder, as the file in it is replaced.
                    "volumes": [{"name": "records", "hostPath": {
                        "path": records.parent().unwrap_or(records), "type": "DirectoryOrCreate",
                    }}],
                },
            },
        },
    })
}

fn available() -> impl Condition<Deployment> {
    |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas).is_some_and(|replicas| replicas > 0)
    }
}
