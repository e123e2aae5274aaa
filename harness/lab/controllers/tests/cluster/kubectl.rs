//! The same through kubectl, as a user would.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::support::Cluster;

struct Kubectl {
    home: tempfile::TempDir,
}

impl Kubectl {
    fn new(cluster: &Cluster) -> Self {
        let home = tempfile::tempdir().unwrap();
        cluster.server.write_kubeconfig(&home.path().join("kubeconfig")).unwrap();
        Self { home }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Applies manifests.
    async fn apply(&self, manifests: &str) -> String {
        let file = self.home.path().join("manifests.yaml");
        std::fs::write(&file, manifests).unwrap();
        self.run(&format!("apply -f {}", file.display())).await
    }

    /// Runs kubectl; fails unless it succeeds.
    async fn run(&self, arguments: &str) -> String {
        let (ok, text) = self.attempt(arguments).await;
        assert!(ok, "kubectl {arguments}: {text}");
        text
    }

    async fn attempt(&self, arguments: &str) -> (bool, String) {
        let output = Command::new("kubectl")
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .output()
            .await
            .expect("kubectl is needed for this test: install it");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_from_creation_to_the_end_of_its_namespace() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl::new(&cluster);
    kubectl.apply(SHOP).await;
    let text = kubectl.run("-n shop rollout status deployment/web --timeout=20s").await;
    assert!(text.contains("successfully rolled out"), "{text}");
    kubectl.run("-n shop wait --for=condition=Available deployment/web --timeout=20s").await;
    kubectl.run("-n shop scale deployment/web --replicas=4").await;
    kubectl.run("-n shop rollout status deployment/web --timeout=20s").await;
    let text = kubectl.run("-n shop get deployment web").await;
    assert!(text.contains("4/4"), "{text}");
    kubectl.run("-n shop set image deployment/web agnhost=agnhost:2").await;
    kubectl.run("-n shop rollout status deployment/web --timeout=20s").await;
    let text = kubectl.run("-n shop rollout history deployment/web").await;
    assert!(text.lines().any(|line| line.starts_with('2')), "{text}");
    kubectl.run("-n shop rollout undo deployment/web").await;
    kubectl.run("-n shop rollout status deployment/web --timeout=20s").await;
    let text = kubectl.run("-n shop get pods -o jsonpath={.items[*].spec.containers[*].image}").await;
    assert!(!text.contains("agnhost:2") && text.contains("agnhost:1"), "{text}");
    kubectl.run("-n shop rollout restart deployment/web").await;
    kubectl.run("-n shop rollout status deployment/web --timeout=20s").await;
    kubectl.run("-n shop expose deployment web --port=80 --target-port=8080").await;
    let text = kubectl.run("-n shop describe deployment web").await;
    assert!(text.contains("ScalingReplicaSet") && text.contains("MinimumReplicasAvailable"), "{text}");
    let text = kubectl.run("-n shop get pods -o wide").await;
    assert!(text.contains("ovn-worker") && text.contains("10.244."), "{text}");
    kubectl.run("-n shop wait --for=condition=Ready pod -l app=web --timeout=20s").await;
    kubectl.run("delete namespace shop --timeout=20s").await;
    let (ok, text) = kubectl.attempt("get namespace shop").await;
    assert!(!ok && text.contains("not found"), "{text}");
    let (_, text) = kubectl.attempt("get all,events,sa,cm,endpointslices -n shop").await;
    assert!(text.contains("No resources found"), "{text}");
}

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: agnhost, image: 'agnhost:1', ports: [{containerPort: 8080}]}
";

const WORKSHOP: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: default}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - {name: main, image: 'agnhost:1', args: [netexec]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: default}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      tolerations: [{operator: Exists}]
      containers:
      - {name: main, image: 'agnhost:1'}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: default}
spec:
  template:
    metadata: {annotations: {test/result: Succeeded}}
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: 'agnhost:1'}
";

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_and_waited_for() {
    let cluster = Cluster::start().await;
    let kubectl = Kubectl::new(&cluster);
    kubectl.apply(WORKSHOP).await;
    let text = kubectl.run("rollout status statefulset/db --timeout=20s").await;
    assert!(text.contains("complete"), "{text}");
    kubectl.run("rollout status daemonset/agent --timeout=20s").await;
    kubectl.run("wait --for=condition=Complete job/once --timeout=20s").await;
    let text = kubectl.run("get pods -l app=db -o jsonpath={.items[*].metadata.name}").await;
    assert_eq!(text.trim(), "db-0 db-1");
    let text = kubectl.run("get daemonset agent --no-headers").await;
    assert_eq!(text.split_whitespace().take(4).collect::<Vec<_>>(), ["agent", "3", "3", "3"]);
    let text = kubectl.apply(WORKSHOP).await;
    assert!(text.lines().all(|line| line.ends_with("unchanged")), "{text}");
    kubectl.run("rollout restart statefulset/db daemonset/agent").await;
    kubectl.run("rollout status statefulset/db --timeout=20s").await;
    kubectl.run("rollout status daemonset/agent --timeout=20s").await;
    kubectl.run("delete statefulset db --cascade=foreground --timeout=20s").await;
    kubectl.run("delete daemonset agent --cascade=orphan --timeout=20s").await;
    let text = kubectl.run("get pods -l app=agent --no-headers").await;
    assert_eq!(text.lines().count(), 3, "orphans stay: {text}");
    kubectl.run("delete pods --all --timeout=20s").await;
    kubectl.run("cordon ovn-worker").await;
    let text = kubectl.run("get node ovn-worker").await;
    assert!(text.contains("SchedulingDisabled"), "{text}");
}
