//! kubectl itself. The program must be there: the lab is for its users.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use udn_lab_apiserver::testing::TestServer;

struct Kubectl {
    _server: TestServer,
    folder: tempfile::TempDir,
}

impl Kubectl {
    async fn start() -> Self {
        let server = TestServer::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        server.write_kubeconfig(&folder.path().join("kubeconfig")).unwrap();
        Self { _server: server, folder }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    async fn run(&self, line: &str, input: &str) -> Result<String, String> {
        let mut child = Command::new("kubectl")
            .args(line.split_whitespace())
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    async fn ok(&self, line: &str) -> String {
        self.run(line, "").await.unwrap_or_else(|error| panic!("kubectl {line}: {error}"))
    }

    async fn apply(&self, line: &str, manifests: &str) -> String {
        self.run(line, manifests).await.unwrap_or_else(|error| panic!("kubectl {line}: {error}"))
    }
}

/// In the manner of the workshops: a namespace, workloads, services, a custom resource.
const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: green, labels: {k8s.ovn.org/primary-user-defined-network: ""}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: green}
spec:
  replicas: 2
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: agnhost
        image: registry.k8s.io/e2e-test-images/agnhost:2.45
        args: [netexec]
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: green}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: green}
spec: {podSelector: {}}
"#;

#[tokio::test]
async fn apply_get_describe_scale_delete() {
    let kubectl = Kubectl::start().await;
    let made = kubectl.apply("apply -f -", MANIFESTS).await;
    assert_eq!(made.lines().filter(|line| line.ends_with(" created")).count(), 4, "{made}");
    let again = kubectl.apply("apply -f -", MANIFESTS).await;
    assert_eq!(again.lines().filter(|line| line.ends_with(" unchanged")).count(), 4, "{again}");
    let changed = kubectl.apply("apply -f -", &MANIFESTS.replace("port: 80,", "port: 81,")).await;
    assert_eq!(changed.lines().filter(|line| line.ends_with(" configured")).count(), 1, "{changed}");
    let all = kubectl.ok("get all -n green -o wide").await;
    assert!(all.contains("statefulset.apps/web   0/2"), "{all}");
    assert!(all.contains("service/web   NodePort"), "{all}");
    kubectl.ok("scale statefulset web -n green --replicas=5").await;
    assert_eq!(kubectl.ok("get sts web -n green -o jsonpath={.spec.replicas}").await, "5");
    let described = kubectl.ok("describe service web -n green").await;
    assert!(described.contains("IP Families:") && described.contains("fd00:10:96::"), "{described}");
    kubectl.ok("label namespace green a=b").await;
    kubectl.ok("annotate sts web -n green c=d").await;
    kubectl.ok("set image sts/web agnhost=other:1 -n green").await;
    kubectl.ok("rollout restart sts/web -n green").await;
    assert_eq!(
        kubectl.ok("get sts web -n green -o jsonpath={.spec.template.spec.containers[0].image}").await,
        "other:1"
    );
    assert_eq!(kubectl.ok("get ns -l a=b -o name").await, "namespace/green\n");
    kubectl.ok("delete sts web -n green --cascade=background").await;
    let gone = kubectl.run("get sts web -n green", "").await.unwrap_err();
    assert_eq!(gone, "Error from server (NotFound): statefulsets.apps \"web\" not found\n");
}

#[tokio::test]
async fn server_side_apply_and_strict_fields() {
    let kubectl = Kubectl::start().await;
    let made = kubectl.apply("apply --server-side -f -", MANIFESTS).await;
    assert_eq!(made.lines().filter(|line| line.ends_with(" serverside-applied")).count(), 4, "{made}");
    let migrated = kubectl.apply("apply -f -", MANIFESTS).await;
    assert!(migrated.contains("service/web configured"), "{migrated}");
    let refused = kubectl.run("apply -f -", &MANIFESTS.replace("serviceName", "serviceNam")).await.unwrap_err();
    assert!(refused.contains("strict decoding error: unknown field \"spec.serviceNam\""), "{refused}");
}

#[tokio::test]
async fn commands_that_speak_protobuf() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("create namespace one").await;
    kubectl.ok("create configmap m -n one --from-literal=a=b").await;
    assert_eq!(kubectl.ok("get cm m -n one -o jsonpath={.data.a}").await, "b");
    kubectl.ok("create secret generic s -n one --from-literal=a=b").await;
    assert_eq!(kubectl.ok("get secret s -n one -o jsonpath={.data.a}").await, "Yg==");
    kubectl.ok("create serviceaccount sa -n one").await;
    kubectl.ok("create deployment d -n one --image=x:1 --replicas=2 --port=80").await;
    let deployment =
        kubectl.ok("get deploy d -n one -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].image}").await;
    assert_eq!(deployment, "2/x:1");
    kubectl.ok("expose deployment d -n one --port=80 --target-port=8080").await;
    kubectl.ok("create service nodeport np -n one --tcp=80:8080").await;
    assert_eq!(kubectl.ok("get svc np -n one -o jsonpath={.spec.ports[0].targetPort}").await, "8080");
    kubectl.ok("create job j -n one --image=x:1 -- sleep 1").await;
    kubectl.ok("create cronjob c -n one --image=x:1 --schedule=@daily").await;
    kubectl.ok("create job from-c -n one --from=cronjob/c").await;
    kubectl.ok("create role r -n one --verb=get --resource=pods").await;
    kubectl.ok("create rolebinding rb -n one --role=r --serviceaccount=one:sa").await;
    kubectl.ok("create clusterrole cr --verb=get --resource=nodes").await;
    kubectl.ok("create clusterrolebinding crb --clusterrole=cr --user=me").await;
    kubectl.ok("create poddisruptionbudget pdb -n one --selector=a=b --min-available=1").await;
    kubectl.ok("create quota q -n one --hard=pods=3").await;
    kubectl.ok("create priorityclass pc --value=10").await;
    assert_eq!(kubectl.ok("auth can-i create pods").await, "yes\n");
    assert!(kubectl.ok("auth whoami").await.contains("kubernetes-admin"));
    assert!(kubectl.ok("auth can-i --list").await.contains("*.*"));
}

#[tokio::test]
async fn definitions_and_their_columns() {
    let kubectl = Kubectl::start().await;
    let definitions = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": udn_api::crds()});
    kubectl.apply("apply -f -", &definitions.to_string()).await;
    kubectl.ok("wait --for=condition=Established crd/userdefinednetworks.k8s.ovn.org --timeout=10s").await;
    let network = "apiVersion: k8s.ovn.org/v1\nkind: UserDefinedNetwork\nmetadata: {name: net}\nspec: {topology: Layer2, layer2: {role: Primary, subnets: [10.1.0.0/16]}}\n";
    assert_eq!(kubectl.apply("apply -f -", network).await, "userdefinednetwork.k8s.ovn.org/net created\n");
    assert_eq!(kubectl.apply("apply -f -", network).await, "userdefinednetwork.k8s.ovn.org/net unchanged\n");
    let wrong = network.replace("role: Primary", "role: Primary, rol: x");
    let refused = kubectl.run("apply -f -", &wrong).await.unwrap_err();
    assert!(refused.contains("strict decoding error: unknown field \"spec.layer2.rol\""), "{refused}");
    let status = r#"{"status":{"conditions":[{"type":"NetworkCreated","status":"True","reason":"R","message":"m","lastTransitionTime":"2025-01-01T00:00:00Z"}]}}"#;
    kubectl.ok(&format!("patch userdefinednetwork net --subresource=status --type=merge -p {status}")).await;
    kubectl.ok("wait --for=condition=NetworkCreated userdefinednetwork/net --timeout=10s").await;
    let explained = kubectl.ok("explain userdefinednetwork.spec").await;
    assert!(explained.contains("topology"), "{explained}");
    let resources = kubectl.ok("api-resources --api-group=k8s.ovn.org -o name").await;
    assert!(resources.contains("userdefinednetworks.k8s.ovn.org"), "{resources}");
    kubectl.ok("delete userdefinednetwork net").await;
}

#[tokio::test]
async fn waiting_for_conditions_and_deletion() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("run p --image=x:1").await;
    let wait = kubectl.run("wait --for=condition=Ready pod/p --timeout=20s", "");
    let act = async {
        let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
        kubectl.ok(&format!("patch pod p --subresource=status -p {ready}")).await
    };
    let (waited, _) = tokio::join!(wait, act);
    assert_eq!(waited.unwrap(), "pod/p condition met\n");
    kubectl.ok("delete pod p --timeout=20s").await;
    kubectl.ok("wait --for=delete pod/p --timeout=20s").await;
}

#[tokio::test]
async fn rights_are_made_asked_for_and_enforced() {
    let kubectl = Kubectl::start().await;
    kubectl.ok("create serviceaccount runner").await;
    kubectl.ok("create role reader --verb=list --resource=pods").await;
    kubectl.ok("create rolebinding reader --role=reader --serviceaccount=default:runner").await;
    let somebody = "--as=system:serviceaccount:default:runner";
    assert_eq!(kubectl.ok(&format!("auth can-i list pods {somebody}")).await, "yes\n");
    // Whoever may not is told so by the exit code.
    assert!(kubectl.run(&format!("auth can-i delete pods {somebody}"), "").await.is_err());
    let rules = kubectl.ok(&format!("auth can-i --list {somebody}")).await;
    assert!(rules.lines().any(|line| line.starts_with("pods ") && line.ends_with("[list]")), "{rules}");

    let token = kubectl.ok("create token runner").await;
    let by_token = |line: &str| format!("--token={} {line}", token.trim());
    kubectl.ok(&by_token("get pods")).await;
    let told = kubectl.run(&by_token("get pods -A"), "").await.unwrap_err();
    assert_eq!(
        told,
        "Error from server (Forbidden): pods is forbidden: User \"system:serviceaccount:default:runner\" cannot list resource \
         \"pods\" in API group \"\" at the cluster scope\n"
    );
}
