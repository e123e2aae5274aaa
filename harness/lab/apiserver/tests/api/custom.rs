//! Custom resources: a definition made up here, and those of OVN-Kubernetes.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{from, refusal, start};

fn definition() -> CustomResourceDefinition {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "x-kubernetes-validations": [
                    {"rule": "self.size >= self.least", "message": "size must not be less than least"},
                    {"rule": "!has(oldSelf.color) || self.color == oldSelf.color", "message": "color is immutable"},
                ],
                "properties": {
                    "size": {"type": "integer", "maximum": 10},
                    "least": {"type": "integer", "default": 1},
                    "replicas": {"type": "integer"},
                    "color": {"type": "string", "enum": ["red", "blue"]},
                    "parts": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}},
                    },
                },
            },
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "ready": {"type": "string"}}},
        },
    });
    from(json!({
        "metadata": {"name": "things.test.io"},
        "spec": {
            "group": "test.io", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        },
    }))
}

async fn things(client: &kube::Client) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    await_condition(definitions, "things.test.io", is_crd_established()).await.unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("test.io", "v1", "Thing"));
    Api::default_namespaced_with(client.clone(), &kind)
}

fn thing(name: &str, spec: Value) -> DynamicObject {
    from(json!({"apiVersion": "test.io/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}))
}

#[tokio::test]
async fn schemas_default_prune_and_refuse() {
    let (_server, client) = start().await;
    let things = things(&client).await;
    let made = things.create(&PostParams::default(), &thing("a", json!({"size": 3, "other": 1}))).await.unwrap();
    assert_eq!(made.data["spec"], json!({"size": 3, "least": 1}));
    assert_eq!(made.metadata.generation, Some(1));
    let wrong = thing("b", json!({"size": 30, "color": "green"}));
    let refused = refusal(things.create(&PostParams::default(), &wrong).await);
    assert_eq!((refused.code, refused.reason.as_str()), (422, "Invalid"));
    assert_eq!(
        refused.message,
        "Thing.test.io \"b\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\", \
         spec.size: Invalid value: 30: spec.size in body should be less than or equal to 10, <nil>: Invalid value: \"null\": \
         some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]"
    );
    let refused = refusal(things.create(&PostParams::default(), &thing("c", json!({"size": 0}))).await);
    assert_eq!(
        refused.message,
        "Thing.test.io \"c\" is invalid: spec: Invalid value: \"object\": size must not be less than least"
    );
}

#[tokio::test]
async fn transition_rules_see_the_old_object() {
    let (_server, client) = start().await;
    let things = things(&client).await;
    things.create(&PostParams::default(), &thing("a", json!({"size": 3, "color": "red"}))).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"color": "blue"}}));
    let refused = refusal(things.patch("a", &PatchParams::default(), &patch).await);
    assert_eq!(refused.message, "Thing.test.io \"a\" is invalid: spec: Invalid value: \"object\": color is immutable");
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let (_server, client) = start().await;
    let things = things(&client).await;
    things.create(&PostParams::default(), &thing("a", json!({"size": 3, "replicas": 2}))).await.unwrap();
    let params = PatchParams::default();
    let patch = Patch::Merge(
        json!({"spec": {"size": 9}, "status": {"ready": "yes", "replicas": 1}, "metadata": {"labels": {"a": "b"}}}),
    );
    let patched = things.patch_status("a", &params, &patch).await.unwrap();
    assert_eq!((&patched.data["spec"]["size"], &patched.data["status"]["ready"]), (&json!(3), &json!("yes")));
    assert!(patched.labels().is_empty());
    let scale = things.get_scale("a").await.unwrap();
    assert_eq!((scale.spec.unwrap().replicas, scale.status.unwrap().replicas), (Some(2), 1));
    things.patch_scale("a", &params, &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
    assert_eq!(things.get("a").await.unwrap().data["spec"]["replicas"], 4);
}

#[tokio::test]
async fn keyed_lists_are_applied_by_item() {
    let (_server, client) = start().await;
    let things = things(&client).await;
    let patch = |part: &str| Patch::Apply(thing("a", json!({"size": 3, "parts": [{"name": part, "n": 1}]})));
    things.patch("a", &PatchParams::apply("one"), &patch("x")).await.unwrap();
    let both = things.patch("a", &PatchParams::apply("two"), &patch("y")).await.unwrap();
    assert_eq!(both.data["spec"]["parts"], json!([{"name": "x", "n": 1}, {"name": "y", "n": 1}]));
    let twice = thing("b", json!({"size": 1, "parts": [{"name": "x"}, {"name": "x"}]}));
    let refused = refusal(things.create(&PostParams::default(), &twice).await);
    assert!(refused.message.contains("spec.parts[1]: Duplicate value: {\"name\":\"x\"}"), "{}", refused.message);
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let (_server, client) = start().await;
    let things = things(&client).await;
    let mut kept = thing("a", json!({"size": 3}));
    kept.metadata.finalizers = Some(vec!["test.io/keep".into()]);
    things.create(&PostParams::default(), &kept).await.unwrap();
    things.create(&PostParams::default(), &thing("b", json!({"size": 3}))).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.delete("things.test.io", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(things.get("b").await).code, 404);
    assert!(definitions.get("things.test.io").await.unwrap().metadata.deletion_timestamp.is_some());
    things.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": []}}))).await.unwrap();
    assert_eq!(refusal(definitions.get("things.test.io").await).code, 404);
    assert_eq!(refusal(things.list(&Default::default()).await).code, 404);
}

#[tokio::test]
async fn a_definition_must_make_sense() {
    let (_server, client) = start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let mut wrong = definition();
    wrong.metadata.name = Some("wrong.test.io".into());
    let refused = refusal(definitions.create(&PostParams::default(), &wrong).await);
    assert!(refused.message.contains("must be spec.names.plural+\".\"+spec.group"), "{}", refused.message);
}

async fn networks(client: &kube::Client, kind: &str) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in udn_api::crds() {
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("k8s.ovn.org", "v1", kind));
    if kind.kind.starts_with("Cluster") {
        Api::all_with(client.clone(), &kind)
    } else {
        Api::default_namespaced_with(client.clone(), &kind)
    }
}

#[tokio::test]
async fn networks_of_ovn_kubernetes() {
    let (_server, client) = start().await;
    let networks = networks(&client, "UserDefinedNetwork").await;
    let network = |name: &str, spec: Value| -> DynamicObject {
        from(
            json!({"apiVersion": "k8s.ovn.org/v1", "kind": "UserDefinedNetwork", "metadata": {"name": name}, "spec": spec}),
        )
    };
    let layer2 =
        json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["10.100.0.0/16", "fd00:100::/64"]}});
    networks.create(&PostParams::default(), &network("good", layer2)).await.unwrap();
    let layer3 = json!({"topology": "Layer3", "layer3": {"role": "Primary", "subnets": [{"cidr": "10.101.0.0/16", "hostSubnet": 24}]}});
    networks.create(&PostParams::default(), &network("routed", layer3)).await.unwrap();
    let cases = [
        (
            json!({"topology": "Layer2", "layer3": {"role": "Primary", "subnets": [{"cidr": "10.0.0.0/16"}]}}),
            "spec.layer2 is required when topology is Layer2 and forbidden otherwise",
        ),
        (
            json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["10.0.0.0/16", "10.1.0.0/16"]}}),
            "When 2 CIDRs are set, they must be from different IP families",
        ),
        (json!({"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["nonsense"]}}), "CIDR is invalid"),
        (
            json!({"topology": "Layer2", "layer2": {"role": "Primary"}}),
            "Subnets is required with ipam.mode is Enabled or unset",
        ),
    ];
    for (spec, text) in cases {
        let refused = refusal(networks.create(&PostParams::default(), &network("bad", spec)).await);
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains(text), "{text}: {}", refused.message);
    }
    let patch = Patch::Merge(json!({"spec": {"layer2": {"subnets": ["10.102.0.0/16"]}}}));
    let refused = refusal(networks.patch("good", &PatchParams::default(), &patch).await);
    assert!(refused.message.contains("Layer2 is immutable"), "{}", refused.message);
}

#[tokio::test]
async fn cluster_networks_of_ovn_kubernetes() {
    let (_server, client) = start().await;
    let networks = networks(&client, "ClusterUserDefinedNetwork").await;
    let network: DynamicObject = from(json!({
        "apiVersion": "k8s.ovn.org/v1", "kind": "ClusterUserDefinedNetwork", "metadata": {"name": "tenants"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"tenant": "blue"}},
            "network": {"topology": "Layer2", "layer2": {"role": "Primary", "subnets": ["192.168.0.0/16"]}},
        },
    }));
    networks.create(&PostParams::default(), &network).await.unwrap();
    let condition = |kind: &str| {
        Patch::Apply(json!({
            "apiVersion": "k8s.ovn.org/v1", "kind": "ClusterUserDefinedNetwork", "metadata": {"name": "tenants"},
            "status": {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2025-01-01T00:00:00Z"}]},
        }))
    };
    networks.patch_status("tenants", &PatchParams::apply("one").force(), &condition("NetworkCreated")).await.unwrap();
    let both = networks
        .patch_status("tenants", &PatchParams::apply("two").force(), &condition("NetworkAllocationSucceeded"))
        .await
        .unwrap();
    assert_eq!(both.data["status"]["conditions"].as_array().unwrap().len(), 2);
}
