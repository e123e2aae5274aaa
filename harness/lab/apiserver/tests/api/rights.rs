//! What service accounts may do: tokens, roles, bindings, and the questions about them.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use udn_lab_apiserver::testing::TestServer;

use super::{config_map, from, pod, refusal, start};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A service account `default/runner` and a client that has its token.
pub(super) async fn runner(server: &TestServer, admin: &kube::Client) -> kube::Client {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    let account: ServiceAccount = from(json!({"metadata": {"name": "runner"}}));
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let issued = accounts.create_token_request("runner", &PostParams::default(), &request).await.unwrap();
    client(server, &issued.status.unwrap().token).await
}

pub(super) async fn client(server: &TestServer, token: &str) -> kube::Client {
    let text = server.kubeconfig().replace(&server.token, token);
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

fn subjects() -> Value {
    json!([{"kind": "ServiceAccount", "name": "runner", "namespace": "default"}])
}

/// Grants rules to the runner: in the whole cluster.
pub(super) async fn grant(admin: &kube::Client, name: &str, role: Value) {
    let mut role: ClusterRole = from(role);
    role.metadata.name = Some(name.into());
    Api::all(admin.clone()).create(&PostParams::default(), &role).await.unwrap();
    bind(admin, name).await;
}

async fn bind(admin: &kube::Client, role: &str) {
    let binding: ClusterRoleBinding = from(json!({"metadata": {"name": role}, "subjects": subjects(),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}}));
    Api::all(admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
}

#[tokio::test]
async fn a_service_account_may_nothing_that_no_role_says() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    let pods: Api<Pod> = Api::all(runner.clone());
    let status = refusal(pods.list(&ListParams::default()).await);
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        status.message,
        r#"pods is forbidden: User "system:serviceaccount:default:runner" cannot list resource "pods" in API group "" at the cluster scope"#
    );
    // Everybody may ask which kinds there are.
    runner.list_api_groups().await.unwrap();
    runner.apiserver_version().await.unwrap();
}

#[tokio::test]
async fn a_role_grants_its_verbs_on_its_resources_in_its_namespace() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    let role: Role = from(json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["mine"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]}));
    let binding: RoleBinding = from(json!({"metadata": {"name": "reader"}, "subjects": subjects(),
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "reader"}}));
    Api::default_namespaced(admin.clone()).create(&PostParams::default(), &role).await.unwrap();
    Api::default_namespaced(admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    for name in ["mine", "other"] {
        maps.create(&PostParams::default(), &config_map(name, json!({}))).await.unwrap();
    }

    let maps: Api<ConfigMap> = Api::default_namespaced(runner.clone());
    maps.get("mine").await.unwrap();
    refusal(maps.get("other").await);
    refusal(maps.list(&ListParams::default()).await);
    let pods: Api<Pod> = Api::default_namespaced(runner.clone());
    pods.list(&ListParams::default()).await.unwrap();
    let status = refusal(pods.create(&PostParams::default(), &pod("p")).await);
    assert!(status.message.ends_with(r#"cannot create resource "pods" in API group "" in the namespace "default""#));
    refusal(Api::<Pod>::namespaced(runner.clone(), "kube-system").list(&ListParams::default()).await);
}

#[tokio::test]
async fn an_apply_that_creates_needs_both_rights() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    grant(&admin, "patch", json!({"rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["patch"]}]}))
        .await;
    let namespaces: Api<Namespace> = Api::all(runner);
    let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made"}});
    let apply = async || namespaces.patch("made", &PatchParams::apply("test"), &Patch::Apply(&manifest)).await;
    let status = refusal(apply().await);
    assert_eq!(
        status.message,
        r#"namespaces "made" is forbidden: User "system:serviceaccount:default:runner" cannot create resource "namespaces" in API group "" in the namespace "made""#
    );
    grant(&admin, "create", json!({"rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]}]}))
        .await;
    apply().await.unwrap();
}

#[tokio::test]
async fn a_role_has_what_it_aggregates() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    let selector = json!([{"matchLabels": {"part-of": "all"}}]);
    grant(&admin, "all", json!({"aggregationRule": {"clusterRoleSelectors": selector}, "rules": []})).await;
    let pods: Api<Pod> = Api::all(runner);
    refusal(pods.list(&ListParams::default()).await);
    let part: ClusterRole = from(json!({"metadata": {"name": "part", "labels": {"part-of": "all"}},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["list"]}]}));
    Api::all(admin).create(&PostParams::default(), &part).await.unwrap();
    pods.list(&ListParams::default()).await.unwrap();
}

#[tokio::test]
async fn reviews_say_what_requests_would_be_told() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    grant(&admin, "exec", json!({"rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}]}))
        .await;
    let may = async |client: &kube::Client, verb: &str| {
        let review: SelfSubjectAccessReview = from(json!({"metadata": {}, "spec": {"resourceAttributes":
            {"verb": verb, "resource": "pods", "subresource": "exec", "namespace": "default"}}}));
        let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
        answer.status.unwrap().allowed
    };
    assert!(may(&runner, "create").await && !may(&runner, "get").await);
    assert!(may(&admin, "get").await);
}

#[tokio::test]
async fn an_administrator_may_be_taken_for_somebody_else_and_nobody_else_may() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    grant(&admin, "list", json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]})).await;
    let list = async |client: &kube::Client, path: &str| {
        let request = http::Request::get(path).header("Impersonate-User", "system:serviceaccount:default:runner");
        client.request::<Value>(request.body(Vec::new()).unwrap()).await
    };
    list(&admin, "/api/v1/pods").await.unwrap();
    assert_eq!(refusal(list(&admin, "/api/v1/secrets").await).code, 403);
    assert_eq!(refusal(list(&runner, "/api/v1/pods").await).code, 403);
}

#[tokio::test]
async fn a_token_dies_with_its_account() {
    let (server, admin) = start().await;
    let runner = runner(&server, &admin).await;
    runner.list_api_groups().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(admin.clone());
    accounts.delete("runner", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(runner.list_api_groups().await).code, 401);
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "runner"}}))).await.unwrap();
    assert_eq!(refusal(runner.list_api_groups().await).code, 401);
    let stranger = client(&server, "lab-0").await;
    assert_eq!(refusal(stranger.list_api_groups().await).code, 401);
}
