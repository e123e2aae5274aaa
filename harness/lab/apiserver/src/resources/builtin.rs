//! The table of built-in kinds.

use super::{Resource, Subresource, Verbs};

const READ: &[&str] = &["get", "patch", "update"];
const POST: &[&str] = &["create"];
const CONNECT: &[&str] = &["create", "get"];

const STATUS: Subresource = Subresource { name: "status", kind: None, verbs: READ };
const SCALE: Subresource = Subresource { name: "scale", kind: Some(("autoscaling", "v1", "Scale")), verbs: READ };
const FINALIZE: Subresource = Subresource { name: "finalize", kind: None, verbs: &["update"] };
const LOG: Subresource = Subresource { name: "log", kind: None, verbs: &["get"] };
const EXEC: Subresource = Subresource { name: "exec", kind: Some(("", "v1", "PodExecOptions")), verbs: CONNECT };
const ATTACH: Subresource = Subresource { name: "attach", kind: Some(("", "v1", "PodAttachOptions")), verbs: CONNECT };
const FORWARD: Subresource =
    Subresource { name: "portforward", kind: Some(("", "v1", "PodPortForwardOptions")), verbs: CONNECT };
const BINDING: Subresource = Subresource { name: "binding", kind: Some(("", "v1", "Binding")), verbs: POST };
const EVICTION: Subresource = Subresource { name: "eviction", kind: Some(("policy", "v1", "Eviction")), verbs: POST };
const EPHEMERAL: Subresource = Subresource { name: "ephemeralcontainers", kind: None, verbs: READ };
const TOKEN: Subresource =
    Subresource { name: "token", kind: Some(("authentication.k8s.io", "v1", "TokenRequest")), verbs: POST };

const NAMESPACED: bool = true;
const CLUSTER: bool = false;

/// Group, version, kind, plural, short names, in a namespace, in category `all`, subresources.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    bool,
    bool,
    &'static [Subresource],
);

const KINDS: &[Row] = &[
    ("", "v1", "Namespace", "namespaces", &["ns"], CLUSTER, false, &[STATUS, FINALIZE]),
    ("", "v1", "Node", "nodes", &["no"], CLUSTER, false, &[STATUS]),
    (
        "",
        "v1",
        "Pod",
        "pods",
        &["po"],
        NAMESPACED,
        true,
        &[STATUS, LOG, EXEC, ATTACH, FORWARD, BINDING, EVICTION, EPHEMERAL],
    ),
    ("", "v1", "Service", "services", &["svc"], NAMESPACED, true, &[STATUS]),
    ("", "v1", "Endpoints", "endpoints", &["ep"], NAMESPACED, false, &[]),
    ("", "v1", "ConfigMap", "configmaps", &["cm"], NAMESPACED, false, &[]),
    ("", "v1", "Secret", "secrets", &[], NAMESPACED, false, &[]),
    ("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], NAMESPACED, false, &[TOKEN]),
    ("", "v1", "Event", "events", &["ev"], NAMESPACED, false, &[]),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], NAMESPACED, false, &[STATUS]),
    ("", "v1", "PersistentVolume", "persistentvolumes", &["pv"], CLUSTER, false, &[STATUS]),
    ("", "v1", "ReplicationController", "replicationcontrollers", &["rc"], NAMESPACED, true, &[STATUS, SCALE]),
    ("", "v1", "LimitRange", "limitranges", &["limits"], NAMESPACED, false, &[]),
    ("", "v1", "ResourceQuota", "resourcequotas", &["quota"], NAMESPACED, false, &[STATUS]),
    ("", "v1", "PodTemplate", "podtemplates", &[], NAMESPACED, false, &[]),
    ("apps", "v1", "Deployment", "deployments", &["deploy"], NAMESPACED, true, &[STATUS, SCALE]),
    ("apps", "v1", "ReplicaSet", "replicasets", &["rs"], NAMESPACED, true, &[STATUS, SCALE]),
    ("apps", "v1", "StatefulSet", "statefulsets", &["sts"], NAMESPACED, true, &[STATUS, SCALE]),
    ("apps", "v1", "DaemonSet", "daemonsets", &["ds"], NAMESPACED, true, &[STATUS]),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", &[], NAMESPACED, false, &[]),
    ("batch", "v1", "Job", "jobs", &[], NAMESPACED, true, &[STATUS]),
    ("batch", "v1", "CronJob", "cronjobs", &["cj"], NAMESPACED, true, &[STATUS]),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &["hpa"], NAMESPACED, true, &[STATUS]),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", &["netpol"], NAMESPACED, false, &[]),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", &["ing"], NAMESPACED, false, &[STATUS]),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", &[], CLUSTER, false, &[]),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[], NAMESPACED, false, &[]),
    ("coordination.k8s.io", "v1", "Lease", "leases", &[], NAMESPACED, false, &[]),
    ("events.k8s.io", "v1", "Event", "events", &["ev"], NAMESPACED, false, &[]),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", &[], NAMESPACED, false, &[]),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", &[], NAMESPACED, false, &[]),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", &[], CLUSTER, false, &[]),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", &[], CLUSTER, false, &[]),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], NAMESPACED, false, &[STATUS]),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", &["pc"], CLUSTER, false, &[]),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", &["sc"], CLUSTER, false, &[]),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        CLUSTER,
        false,
        &[STATUS],
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        &[],
        CLUSTER,
        false,
        &[STATUS],
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        &[],
        CLUSTER,
        false,
        &[],
    ),
];

/// Kinds that are asked and answered at once.
const QUESTIONS: &[(&str, &str, &str, &str, bool)] = &[
    ("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", CLUSTER),
    ("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", CLUSTER),
    ("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", CLUSTER),
    ("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", NAMESPACED),
    ("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", CLUSTER),
    ("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", CLUSTER),
    ("", "v1", "Binding", "bindings", NAMESPACED),
];

/// The shelf that holds a group's plural. Events are one set of objects with two faces.
fn storage(group: &str, plural: &str) -> String {
    match (group, plural) {
        ("" | "events.k8s.io", "events") => "events".into(),
        ("", plural) => plural.into(),
        (group, plural) => format!("{group}/{plural}"),
    }
}

pub(super) fn all() -> Vec<Resource> {
    let kinds = KINDS.iter().map(|&(group, version, kind, plural, short, namespaced, in_all, subresources)| Resource {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        short: short.iter().map(ToString::to_string).collect(),
        categories: if in_all { vec!["all".into()] } else { Vec::new() },
        namespaced,
        verbs: Verbs::All,
        subresources: subresources.to_vec(),
        storage: storage(group, plural).into(),
        custom: None,
    });
    let questions = QUESTIONS.iter().map(|&(group, version, kind, plural, namespaced)| Resource {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        short: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: Verbs::Create,
        subresources: Vec::new(),
        storage: storage(group, plural).into(),
        custom: None,
    });
    kinds.chain(questions).collect()
}
