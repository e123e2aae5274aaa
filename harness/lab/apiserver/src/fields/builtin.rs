//! The merging parts of built-in kinds, after the markers in Kubernetes' own types (`patchMergeKey`, `listType`,
//! `listMapKey`, `mapType`). What is not named here is granular if an object and a whole if a list.

use super::shape::Shape;

/// A list whose items merge.
#[derive(Debug)]
pub(crate) struct List {
    /// Type of the items.
    pub(crate) item: &'static str,
    /// Keys for server-side apply; none: a set of values.
    pub(crate) keys: &'static [&'static str],
    /// Key for strategic merge patches; `""`: a set of values; `None`: such patches replace the list.
    pub(crate) merge_key: Option<&'static str>,
}

/// What a field is.
enum Is {
    Type(&'static str),
    List(&'static List),
    Whole,
}

macro_rules! list {
    ($item:literal by $($key:literal),+; merge $merge:literal) => {
        Is::List(&List { item: $item, keys: &[$($key),+], merge_key: Some($merge) })
    };
}

const SET: Is = Is::List(&List { item: "", keys: &[], merge_key: Some("") });
const SET_REPLACED_BY_PATCH: Is = Is::List(&List { item: "", keys: &[], merge_key: None });

/// Type of a kind's objects.
pub(super) fn root(group: &str, kind: &str) -> &'static str {
    match (group, kind) {
        ("", "Pod") => "Pod",
        ("", "Service") => "Service",
        ("", "Node") => "Node",
        ("", "Namespace") => "Namespace",
        ("", "ServiceAccount") => "ServiceAccount",
        ("", "PersistentVolumeClaim") => "PersistentVolumeClaim",
        ("", "PodTemplate") => "PodTemplate",
        ("", "ReplicationController") => "ReplicationController",
        ("", "Secret" | "ConfigMap") => "Object",
        ("", "Endpoints") => "Endpoints",
        ("apps", _) => "Workload",
        ("batch", "Job") => "Job",
        ("batch", "CronJob") => "CronJob",
        ("discovery.k8s.io", "EndpointSlice") => "EndpointSlice",
        ("networking.k8s.io", "NetworkPolicy") => "NetworkPolicy",
        ("networking.k8s.io", "Ingress") => "Ingress",
        ("policy", "PodDisruptionBudget") => "PodDisruptionBudget",
        ("rbac.authorization.k8s.io", _) => "Role",
        ("apiextensions.k8s.io", _) => "CustomResourceDefinition",
        ("admissionregistration.k8s.io", _) => "ValidatingAdmissionPolicy",
        _ => "Object",
    }
}

/// Shape of a type's field.
pub(super) fn field(kind: &str, name: &str) -> Shape<'static> {
    match lookup(kind, name) {
        Some(Is::Type(kind)) => Shape::Named(kind),
        Some(Is::List(list)) => Shape::List(list),
        Some(Is::Whole) => Shape::Atomic,
        None => Shape::Unknown,
    }
}

fn lookup(kind: &str, name: &str) -> Option<Is> {
    Some(match (kind, name) {
        ("ObjectMeta", "finalizers") => SET,
        ("ObjectMeta", "ownerReferences") => list!("OwnerReference" by "uid"; merge "uid"),
        ("OwnerReference", _) => return None,
        ("PodTemplateSpec" | "JobTemplateSpec" | "ClaimTemplate", "metadata") => Is::Type("ObjectMeta"),
        ("ObjectMeta" | "", _) => return None,
        (_, "metadata") if is_root(kind) => Is::Type("ObjectMeta"),

        ("Pod", "spec") | ("PodTemplateSpec", "spec") => Is::Type("PodSpec"),
        ("Pod", "status") => Is::Type("PodStatus"),
        ("PodTemplate", "template") => Is::Type("PodTemplateSpec"),
        ("PodStatus", "podIPs") => list!("PodIP" by "ip"; merge "ip"),
        ("PodStatus", "hostIPs") => list!("PodIP" by "ip"; merge "ip"),
        ("PodSpec", name) => return pod_spec(name),
        ("Container", name) => return container(name),
        ("Volume", "configMap" | "secret" | "projected" | "emptyDir") => return None,
        ("EnvVar", "valueFrom") => Is::Type("EnvVarSource"),
        ("EnvVarSource", _) | ("EnvFrom", _) => Is::Whole,

        ("Service", "spec") => Is::Type("ServiceSpec"),
        ("Service", "status") => Is::Type("Status"),
        ("ServiceSpec", "ports") => list!("ServicePort" by "port", "protocol"; merge "port"),
        ("ServiceSpec", "selector") => Is::Whole,

        ("Node", "spec") => Is::Type("NodeSpec"),
        ("Node", "status") => Is::Type("NodeStatus"),
        ("NodeSpec", "podCIDRs") => SET,
        ("NodeStatus", "addresses") => list!("NodeAddress" by "type"; merge "type"),

        ("ServiceAccount", "secrets") => list!("ObjectReference" by "name"; merge "name"),

        ("Workload" | "ReplicationController", "spec") => Is::Type("WorkloadSpec"),
        ("WorkloadSpec", "template") => Is::Type("PodTemplateSpec"),
        ("WorkloadSpec", "selector") => Is::Whole,
        ("WorkloadSpec", "volumeClaimTemplates") => return None,
        ("Job", "spec") | ("JobTemplateSpec", "spec") => Is::Type("WorkloadSpec"),
        ("CronJob", "spec") => Is::Type("CronJobSpec"),
        ("CronJobSpec", "jobTemplate") => Is::Type("JobTemplateSpec"),

        ("EndpointSlice", "endpoints" | "ports") => Is::Whole,
        ("NetworkPolicy", "spec") => Is::Type("NetworkPolicySpec"),
        ("NetworkPolicySpec", "podSelector") => Is::Whole,
        ("PodDisruptionBudget", "spec") => Is::Type("PodDisruptionBudgetSpec"),
        ("PodDisruptionBudgetSpec", "selector") => Is::Whole,
        ("Role", "roleRef" | "aggregationRule") => Is::Whole,
        ("ValidatingAdmissionPolicy", "spec") => Is::Type("PolicySpec"),
        ("PolicySpec", "variables" | "matchConditions") => list!("Variable" by "name"; merge "name"),
        ("PolicySpec", "paramRef" | "paramKind") => Is::Whole,
        ("PolicySpec", "validationActions") => SET_REPLACED_BY_PATCH,
        ("CustomResourceDefinition", "spec") => return None,

        (kind, "status") if is_root(kind) => Is::Type("Status"),
        ("PodStatus" | "NodeStatus" | "Status", "conditions") => list!("Condition" by "type"; merge "type"),
        _ => return None,
    })
}

/// Types that are whole objects with metadata.
fn is_root(kind: &str) -> bool {
    matches!(
        kind,
        "Object"
            | "Pod"
            | "Service"
            | "Node"
            | "Namespace"
            | "ServiceAccount"
            | "PersistentVolumeClaim"
            | "PodTemplate"
            | "ReplicationController"
            | "Endpoints"
            | "Workload"
            | "Job"
            | "CronJob"
            | "EndpointSlice"
            | "NetworkPolicy"
            | "Ingress"
            | "PodDisruptionBudget"
            | "Role"
            | "CustomResourceDefinition"
            | "ValidatingAdmissionPolicy"
    )
}

fn pod_spec(name: &str) -> Option<Is> {
    Some(match name {
        "containers" | "initContainers" | "ephemeralContainers" => list!("Container" by "name"; merge "name"),
        "volumes" => list!("Volume" by "name"; merge "name"),
        "imagePullSecrets" => list!("LocalReference" by "name"; merge "name"),
        "hostAliases" => list!("HostAlias" by "ip"; merge "ip"),
        "topologySpreadConstraints" => {
            list!("Spread" by "topologyKey", "whenUnsatisfiable"; merge "topologyKey")
        }
        "schedulingGates" | "resourceClaims" => list!("Named" by "name"; merge "name"),
        "nodeSelector" => Is::Whole,
        _ => return None,
    })
}

fn container(name: &str) -> Option<Is> {
    Some(match name {
        "ports" => list!("ContainerPort" by "containerPort", "protocol"; merge "containerPort"),
        "env" => list!("EnvVar" by "name"; merge "name"),
        "volumeMounts" => list!("VolumeMount" by "mountPath"; merge "mountPath"),
        "volumeDevices" => list!("VolumeDevice" by "devicePath"; merge "devicePath"),
        _ => return None,
    })
}
