//! ValidatingAdmissionPolicies.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{config_map, from, refusal, start};

const LABEL: &str = "k8s.ovn.org/primary-user-defined-network";

async fn install(client: &kube::Client, spec: Value) {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &from(json!({"metadata": {"name": "p"}, "spec": spec}))).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    bindings.create(&PostParams::default(), &from(binding)).await.unwrap();
}

#[tokio::test]
async fn the_label_of_primary_networks_stays_as_it_was_created() {
    let (_server, client) = start().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for (policy, binding) in udn_api::admission_policies() {
        Api::all(client.clone()).create(&PostParams::default(), &policy).await.unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    }
    for (name, labels) in [("with", json!({LABEL: ""})), ("without", json!({}))] {
        let namespace = from(json!({"metadata": {"name": name, "labels": labels}}));
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }
    for (name, value) in [("with", json!(null)), ("without", json!(""))] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: value}}}));
        let refused = refusal(namespaces.patch(name, &PatchParams::default(), &patch).await);
        assert_eq!((refused.code, refused.reason.as_str()), (422, "Invalid"));
        let start = format!("namespaces {name:?} is forbidden: ValidatingAdmissionPolicy '");
        assert!(
            refused.message.starts_with(&start) && refused.message.contains(" denied request: "),
            "{}",
            refused.message
        );
    }
    let other = Patch::Merge(json!({"metadata": {"labels": {"else": "x"}}}));
    namespaces.patch("with", &PatchParams::default(), &other).await.unwrap();
}

#[tokio::test]
async fn variables_conditions_and_computed_messages() {
    let (_server, client) = start().await;
    install(
        &client,
        json!({
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]},
            "matchConditions": [{"name": "not-free", "expression": "object.metadata.name != 'free'"}],
            "variables": [{"name": "size", "expression": "has(object.data) ? size(object.data) : 0"}],
            "validations": [{
                "expression": "variables.size <= 1",
                "messageExpression": "'too many keys: ' + string(variables.size) + ' by ' + request.userInfo.username",
                "reason": "Forbidden",
            }],
        }),
    )
    .await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let two = || json!({"a": "", "b": ""});
    maps.create(&PostParams::default(), &config_map("free", two())).await.unwrap();
    maps.create(&PostParams::default(), &config_map("one", json!({"a": ""}))).await.unwrap();
    maps.create(&PostParams::default(), &config_map("none", json!({}))).await.unwrap();
    let refused = refusal(maps.create(&PostParams::default(), &config_map("two", two())).await);
    assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        refused.message,
        "configmaps \"two\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: \
         too many keys: 2 by kubernetes-admin"
    );
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client);
    bindings.delete("b", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("two", two())).await.unwrap();
}

#[tokio::test]
async fn deletions_can_be_denied() {
    let (_server, client) = start().await;
    install(
        &client,
        json!({
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "!('keep' in oldObject.metadata.?labels.orValue({}))", "message": "kept"}],
        }),
    )
    .await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut kept = config_map("kept", json!({}));
    kept.metadata.labels = Some([("keep".to_owned(), String::new())].into());
    maps.create(&PostParams::default(), &kept).await.unwrap();
    maps.create(&PostParams::default(), &config_map("other", json!({}))).await.unwrap();
    assert!(refusal(maps.delete("kept", &DeleteParams::default()).await).message.ends_with("denied request: kept"));
    maps.delete("other", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_policy_that_is_no_cel_is_refused() {
    let (_server, client) = start().await;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client);
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]},
        "validations": [{"expression": "object.("}]}});
    let refused = refusal(policies.create(&PostParams::default(), &from(policy)).await);
    assert!(refused.message.contains("spec.validations[0].expression: Invalid value"), "{}", refused.message);
}
