//! A namespace with a primary network, its machines, and a pod that talks to them.

use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use kube::api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use crate::guest::Console;

const GUEST: &str = "udn-conformance.local/guest:latest";
/// A guest boots in three seconds on an idle host; the first one of all waits for packages.
const DEADLINE: Duration = Duration::from_secs(240);

/// The namespace.
pub(crate) struct World {
    client: Client,
    namespace: &'static str,
}

impl World {
    pub(crate) async fn new(kubeconfig: &Path, namespace: &'static str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.proxy_url = None;
        let world = Self { client: Client::try_from(config).unwrap(), namespace };
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {"k8s.ovn.org/primary-user-defined-network": ""}},
        }))
        .unwrap();
        Api::all(world.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let network = json!({"metadata": {"name": "happy"}, "spec": {"topology": "Layer2", "layer2": {
            "role": "Primary", "subnets": ["10.123.0.0/16"], "ipam": {"lifecycle": "Persistent"},
        }}});
        world.create("k8s.ovn.org", "UserDefinedNetwork", network).await;
        world
    }

    fn api(&self, group: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        Api::namespaced_with(self.client.clone(), self.namespace, &resource)
    }

    fn machines(&self) -> Api<DynamicObject> {
        self.api("kubevirt.io", "VirtualMachine")
    }

    fn instances(&self) -> Api<DynamicObject> {
        self.api("kubevirt.io", "VirtualMachineInstance")
    }

    async fn create(&self, group: &str, kind: &str, mut object: Value) {
        object["apiVersion"] = format!("{group}/v1").into();
        object["kind"] = kind.into();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.api(group, kind).create(&PostParams::default(), &object).await.unwrap();
    }

    pub(crate) async fn machine(&self, name: &str, strategy: &str) {
        self.machine_from(name, strategy, "96Mi", GUEST, json!({})).await;
    }

    /// A machine whose guest boots as `boot` says.
    pub(crate) async fn machine_by(&self, name: &str, boot: &str) {
        self.machine_from(name, "Always", "96Mi", GUEST, json!({"lab.udn-conformance.io/boot": boot})).await;
    }

    pub(crate) async fn machine_from(&self, name: &str, strategy: &str, memory: &str, image: &str, annotations: Value) {
        let spec = json!({
            "terminationGracePeriodSeconds": 0,
            "domain": {
                "cpu": {"cores": 1}, "memory": {"guest": memory},
                "devices": {"rng": {}, "interfaces": [{"name": "default", "binding": {"name": "l2bridge"}}]},
                "firmware": {"kernelBoot": {
                    "kernelArgs": "console=ttyS0 quiet", "container": {"image": image, "kernelPath": "/boot/vmlinuz"},
                }},
            },
            "networks": [{"name": "default", "pod": {}}],
        });
        let machine = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {
            "runStrategy": strategy, "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        }});
        self.create("kubevirt.io", "VirtualMachine", machine).await;
    }

    async fn wait(&self, api: Api<DynamicObject>, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let fits = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| wanted(&serde_json::to_value(object).unwrap()))
        };
        match tokio::time::timeout(DEADLINE, await_condition(api.clone(), name, fits)).await {
            Ok(object) => serde_json::to_value(object.unwrap().unwrap()).unwrap(),
            Err(_) => panic!("{name} is not {what} within {DEADLINE:?}: {:#?}", api.get_opt(name).await.unwrap()),
        }
    }

    /// The machine, once it is so.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait(self.machines(), name, what, wanted).await
    }

    /// The status of the instance, once it runs.
    pub(crate) async fn running(&self, name: &str) -> Value {
        let runs = |one: &Value| one["status"]["phase"] == "Running" && one["metadata"]["deletionTimestamp"].is_null();
        let one = self.wait(self.instances(), name, "running", runs).await;
        self.until(name, "ready", |machine| machine["status"]["ready"] == true).await;
        let mut status = one["status"].clone();
        status["uid"] = one["metadata"]["uid"].clone();
        status
    }

    /// Waits until another instance than `before` runs.
    pub(crate) async fn reborn(&self, name: &str, before: &Value) {
        let another = |one: &Value| one["status"]["phase"] == "Running" && one["metadata"]["uid"] != before["uid"];
        self.wait(self.instances(), name, "another", another).await;
    }

    /// Waits until the machine, its instance, or its migration says these words.
    pub(crate) async fn failed(&self, name: &str, words: &str) {
        self.wait(self.instances(), name, words, |one| one["status"].to_string().contains(words)).await;
    }

    /// Whether an event of this reason is about the instance, or soon will be.
    pub(crate) async fn is_told(&self, name: &str, reason: &str) -> bool {
        let events = Api::<Event>::namespaced(self.client.clone(), self.namespace);
        let about = ListParams::default().fields(&format!("involvedObject.name={name},reason={reason}"));
        for _ in 0..20 {
            if !events.list(&about).await.unwrap().items.is_empty() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    pub(crate) async fn console(&self, name: &str) -> Console {
        Console::open(&self.client, self.namespace, name).await
    }

    pub(crate) async fn migrate(&self, name: &str, machine: &str, annotations: Value) {
        let migration = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"vmiName": machine}});
        self.create("kubevirt.io", "VirtualMachineInstanceMigration", migration).await;
    }

    /// The migration, once it is over.
    pub(crate) async fn migrated(&self, name: &str) -> Value {
        let over = |one: &Value| one["status"]["phase"] == "Succeeded" || one["status"]["phase"] == "Failed";
        self.wait(self.api("kubevirt.io", "VirtualMachineInstanceMigration"), name, "over", over).await
    }

    /// Waits until a migration says these words, and is not over.
    pub(crate) async fn waiting(&self, name: &str, words: &str) {
        let api = self.api("kubevirt.io", "VirtualMachineInstanceMigration");
        let one = self.wait(api, name, words, |one| one["status"].to_string().contains(words)).await;
        assert_eq!(one["status"]["phase"], "Scheduling", "{one:#}");
    }

    /// Deletes a migration, and waits until it is gone.
    pub(crate) async fn call_off(&self, name: &str) {
        let api = self.api("kubevirt.io", "VirtualMachineInstanceMigration");
        api.delete(name, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(api, name, |object: Option<&DynamicObject>| object.is_none());
        tokio::time::timeout(DEADLINE, gone).await.unwrap().unwrap();
    }

    /// Lets nodes take pods, or not.
    pub(crate) async fn cordon(&self, cordoned: bool) {
        let nodes = Api::<Node>::all(self.client.clone());
        for name in ["ovn-worker", "ovn-worker2"] {
            let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
            nodes.patch(name, &PatchParams::default(), &patch).await.unwrap();
        }
    }

    /// Deletes the namespace with all that is in it.
    pub(crate) async fn delete_namespace(&self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(self.namespace, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(namespaces, self.namespace, |object: Option<&Namespace>| object.is_none());
        tokio::time::timeout(DEADLINE, gone).await.expect("the namespace stays").unwrap();
    }

    /// The phase of a pod, once it is over.
    pub(crate) async fn pod(&self, name: &str) -> String {
        let over = |one: &Value| one["status"]["phase"] == "Succeeded" || one["status"]["phase"] == "Failed";
        self.wait(self.api("", "Pod"), name, "over", over).await["status"]["phase"].as_str().unwrap().to_owned()
    }

    /// Deletes a machine, and waits until nothing of it is left.
    pub(crate) async fn delete(&self, name: &str) {
        let deleted = std::time::Instant::now();
        self.machines().delete(name, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(self.machines(), name, |object: Option<&DynamicObject>| object.is_none());
        tokio::time::timeout(DEADLINE, gone).await.unwrap().unwrap();
        assert!(self.instances().get_opt(name).await.unwrap().is_none());
        println!("deleted within {:?}", deleted.elapsed());
    }

    async fn put(&self, plural: &str, name: &str, action: &str) -> Result<(), String> {
        let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/{}/{plural}/{name}/{action}", self.namespace);
        let answer = self.client.send(http::Request::put(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let said = answer.into_body().collect_bytes().await.unwrap();
        if status.is_success() { Ok(()) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&said))) }
    }

    pub(crate) async fn act(&self, name: &str, action: &str) -> Result<(), String> {
        self.put("virtualmachines", name, action).await
    }

    pub(crate) async fn pause(&self, name: &str, action: &str) -> Result<(), String> {
        self.put("virtualmachineinstances", name, action).await
    }

    /// A pod with a connection to a guest that returns what it gets.
    pub(crate) async fn client(&self, address: &str) -> Connection {
        let pod = json!({"metadata": {"name": "client"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "9999"]}],
        }});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let running = await_condition(pods.clone(), "client", kube::runtime::conditions::is_pod_running());
        tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap();
        let parameters = AttachParams::default().stdin(true).stderr(false);
        let mut process = pods.exec("client", ["nc", address, "7007"], &parameters).await.unwrap();
        let (stdin, stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
        let mut connection =
            Connection { to: Box::pin(stdin), from: BufReader::new(Box::pin(stdout)), _process: process };
        let banner = connection.line().await;
        assert!(banner.contains("guest"), "{banner}");
        connection
    }

    /// Waits until so many emulators of this namespace's guests run below this program: one that was told to end does so a moment after its object says.
    pub(crate) async fn emulators(&self, wanted: usize) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let found = crate::killed::emulators(&format!("{}_", self.namespace));
            if found == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{found} emulators run after five seconds, not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A connection to a guest.
pub(crate) struct Connection {
    to: Pin<Box<dyn AsyncWrite>>,
    from: BufReader<Pin<Box<dyn AsyncRead>>>,
    _process: kube::api::AttachedProcess,
}

impl Connection {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the connection is silent").unwrap();
        line.trim_end().to_owned()
    }

    /// Says something, and returns what comes back.
    pub(crate) async fn say(&mut self, word: &str) -> String {
        self.to.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        self.line().await
    }
}
