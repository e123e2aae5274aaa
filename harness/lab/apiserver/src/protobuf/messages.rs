//! The messages that clients send: field numbers of Kubernetes' API types.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Text,
    Number,
    Truth,
    Bytes,
    Time,
    Quantity,
    IntOrString,
    /// From texts to something.
    Map(Box<Kind>),
    Message(&'static str),
    /// A message whose fields are in JSON those of the message around it.
    Inline(&'static str),
    /// A status, which no client sets here.
    Ignored,
}

impl Kind {
    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Whether an empty value is one, and not the same as none.
    pub(super) pointer: bool,
}

/// A message per line: its name and its fields as `number name type`.
/// Types: `s` text, `i` number, `b` truth, `y` bytes, `time`, `q` quantity, `x` number or text, `-` ignored, else a message.
/// `[t]` repeated, `{t}` map from texts, `t*` a pointer in Go, `&t` inline.
const MESSAGES: &str = "
ObjectMeta 1 name s, 2 generateName s, 3 namespace s, 4 selfLink s, 5 uid s, 6 resourceVersion s, 7 generation i, 8 creationTimestamp time, 9 deletionTimestamp time, 10 deletionGracePeriodSeconds i*, 11 labels {s}, 12 annotations {s}, 13 ownerReferences [OwnerReference], 14 finalizers [s], 17 managedFields -
OwnerReference 1 kind s, 3 name s, 4 uid s, 5 apiVersion s, 6 controller b*, 7 blockOwnerDeletion b*
LabelSelector 1 matchLabels {s}, 2 matchExpressions [LabelSelectorRequirement]
LabelSelectorRequirement 1 key s, 2 operator s, 3 values [s]
ObjectReference 1 kind s, 2 namespace s, 3 name s, 4 uid s, 5 apiVersion s, 6 resourceVersion s, 7 fieldPath s
LocalObjectReference 1 name s
Preconditions 1 uid s*, 2 resourceVersion s*
DeleteOptions 1 gracePeriodSeconds i*, 2 preconditions Preconditions*, 3 orphanDependents b*, 4 propagationPolicy s*, 5 dryRun [s]

Namespace 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status -
NamespaceSpec 1 finalizers [s]
ConfigMap 1 metadata ObjectMeta, 2 data {s}, 3 binaryData {y}, 4 immutable b*
Secret 1 metadata ObjectMeta, 2 data {y}, 3 type s, 4 stringData {s}, 5 immutable b*
ServiceAccount 1 metadata ObjectMeta, 2 secrets [ObjectReference], 3 imagePullSecrets [LocalObjectReference], 4 automountServiceAccountToken b*
Service 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status -
ServiceSpec 1 ports [ServicePort], 2 selector {s}, 3 clusterIP s, 4 type s, 5 externalIPs [s], 7 sessionAffinity s, 8 loadBalancerIP s, 9 loadBalancerSourceRanges [s], 10 externalName s, 11 externalTrafficPolicy s, 12 healthCheckNodePort i, 13 publishNotReadyAddresses b, 14 sessionAffinityConfig SessionAffinityConfig*, 17 ipFamilyPolicy s*, 18 clusterIPs [s], 19 ipFamilies [s], 20 allocateLoadBalancerNodePorts b*, 21 loadBalancerClass s*, 22 internalTrafficPolicy s*, 23 trafficDistribution s*
ServicePort 1 name s, 2 protocol s, 3 port i, 4 targetPort x, 5 nodePort i, 6 appProtocol s*
SessionAffinityConfig 1 clientIP ClientIPConfig*
ClientIPConfig 1 timeoutSeconds i*
ResourceQuota 1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status -
ResourceQuotaSpec 1 hard {q}, 2 scopes [s]
Binding 1 metadata ObjectMeta, 2 target ObjectReference
Event 1 metadata ObjectMeta, 2 involvedObject ObjectReference, 3 reason s, 4 message s, 5 source EventSource, 6 firstTimestamp time, 7 lastTimestamp time, 8 count i, 9 type s, 10 eventTime time, 11 series EventSeries*, 12 action s, 13 related ObjectReference*, 14 reportingComponent s, 15 reportingInstance s
EventSource 1 component s, 2 host s
EventSeries 1 count i, 2 lastObservedTime time
Lease 1 metadata ObjectMeta, 2 spec LeaseSpec
LeaseSpec 1 holderIdentity s*, 2 leaseDurationSeconds i*, 3 acquireTime time, 4 renewTime time, 5 leaseTransitions i*

Pod 1 metadata ObjectMeta, 2 spec PodSpec, 3 status -
PodTemplateSpec 1 metadata ObjectMeta, 2 spec PodSpec
PodSpec 1 volumes [Volume], 2 containers [Container], 3 restartPolicy s, 4 terminationGracePeriodSeconds i*, 5 activeDeadlineSeconds i*, 6 dnsPolicy s, 7 nodeSelector {s}, 8 serviceAccountName s, 9 serviceAccount s, 10 nodeName s, 11 hostNetwork b, 12 hostPID b, 13 hostIPC b, 14 securityContext PodSecurityContext*, 15 imagePullSecrets [LocalObjectReference], 16 hostname s, 17 subdomain s, 19 schedulerName s, 20 initContainers [Container], 21 automountServiceAccountToken b*, 22 tolerations [Toleration], 23 hostAliases [HostAlias], 24 priorityClassName s, 25 priority i*, 27 shareProcessNamespace b*, 29 runtimeClassName s*, 30 enableServiceLinks b*, 31 preemptionPolicy s*, 35 setHostnameAsFQDN b*, 37 hostUsers b*
PodSecurityContext 2 runAsUser i*, 3 runAsNonRoot b*, 4 supplementalGroups [i], 5 fsGroup i*, 6 runAsGroup i*, 7 sysctls [Sysctl], 9 fsGroupChangePolicy s*
Sysctl 1 name s, 2 value s
Toleration 1 key s, 2 operator s, 3 value s, 4 effect s, 5 tolerationSeconds i*
HostAlias 1 ip s, 2 hostnames [s]
Container 1 name s, 2 image s, 3 command [s], 4 args [s], 5 workingDir s, 6 ports [ContainerPort], 7 env [EnvVar], 8 resources ResourceRequirements, 9 volumeMounts [VolumeMount], 10 livenessProbe Probe*, 11 readinessProbe Probe*, 12 lifecycle Lifecycle*, 13 terminationMessagePath s, 14 imagePullPolicy s, 15 securityContext SecurityContext*, 16 stdin b, 17 stdinOnce b, 18 tty b, 19 envFrom [EnvFromSource], 20 terminationMessagePolicy s, 22 startupProbe Probe*, 24 restartPolicy s*
ContainerPort 1 name s, 2 hostPort i, 3 containerPort i, 4 protocol s, 5 hostIP s
EnvVar 1 name s, 2 value s, 3 valueFrom EnvVarSource*
EnvVarSource 1 fieldRef ObjectFieldSelector*, 3 configMapKeyRef KeySelector*, 4 secretKeyRef KeySelector*
ObjectFieldSelector 1 apiVersion s, 2 fieldPath s
KeySelector 1 localObjectReference &LocalObjectReference, 2 key s, 3 optional b*
EnvFromSource 1 prefix s, 2 configMapRef EnvSource*, 3 secretRef EnvSource*
EnvSource 1 localObjectReference &LocalObjectReference, 2 optional b*
ResourceRequirements 1 limits {q}, 2 requests {q}
VolumeMount 1 name s, 2 readOnly b, 3 mountPath s, 4 subPath s, 5 mountPropagation s*, 6 subPathExpr s
Lifecycle 1 postStart Handler*, 2 preStop Handler*
Handler 1 exec ExecAction*, 2 httpGet HTTPGetAction*, 3 tcpSocket TCPSocketAction*
ProbeHandler 1 exec ExecAction*, 2 httpGet HTTPGetAction*, 3 tcpSocket TCPSocketAction*
Probe 1 handler &ProbeHandler, 2 initialDelaySeconds i, 3 timeoutSeconds i, 4 periodSeconds i, 5 successThreshold i, 6 failureThreshold i, 7 terminationGracePeriodSeconds i*
ExecAction 1 command [s]
HTTPGetAction 1 path s, 2 port x, 3 host s, 4 scheme s, 5 httpHeaders [HTTPHeader]
HTTPHeader 1 name s, 2 value s
TCPSocketAction 1 port x, 2 host s
SecurityContext 1 capabilities Capabilities*, 2 privileged b*, 4 runAsUser i*, 5 runAsNonRoot b*, 6 readOnlyRootFilesystem b*, 7 allowPrivilegeEscalation b*, 8 runAsGroup i*, 9 procMount s*
Capabilities 1 add [s], 2 drop [s]
Volume 1 name s, 2 volumeSource &VolumeSource
VolumeSource 1 hostPath HostPathVolume*, 2 emptyDir EmptyDirVolume*, 6 secret SecretVolume*, 19 configMap ConfigMapVolume*
HostPathVolume 1 path s, 2 type s*
EmptyDirVolume 1 medium s, 2 sizeLimit q*
SecretVolume 1 secretName s, 2 items [KeyToPath], 3 defaultMode i*, 4 optional b*
ConfigMapVolume 1 localObjectReference &LocalObjectReference, 2 items [KeyToPath], 3 defaultMode i*, 4 optional b*
KeyToPath 1 key s, 2 path s, 3 mode i*

Deployment 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status -
DeploymentSpec 1 replicas i*, 2 selector LabelSelector*, 3 template PodTemplateSpec, 4 strategy DeploymentStrategy, 5 minReadySeconds i, 6 revisionHistoryLimit i*, 7 paused b, 9 progressDeadlineSeconds i*
DeploymentStrategy 1 type s, 2 rollingUpdate RollingUpdate*
RollingUpdate 1 maxUnavailable x*, 2 maxSurge x*
Job 1 metadata ObjectMeta, 2 spec JobSpec, 3 status -
JobSpec 1 parallelism i*, 2 completions i*, 3 activeDeadlineSeconds i*, 4 selector LabelSelector*, 5 manualSelector b*, 6 template PodTemplateSpec, 7 backoffLimit i*, 8 ttlSecondsAfterFinished i*, 9 completionMode s*, 10 suspend b*, 14 podReplacementPolicy s*
CronJob 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status -
CronJobSpec 1 schedule s, 2 startingDeadlineSeconds i*, 3 concurrencyPolicy s, 4 suspend b*, 5 jobTemplate JobTemplateSpec, 6 successfulJobsHistoryLimit i*, 7 failedJobsHistoryLimit i*, 8 timeZone s*
JobTemplateSpec 1 metadata ObjectMeta, 2 spec JobSpec

Role 1 metadata ObjectMeta, 2 rules [PolicyRule]
ClusterRole 1 metadata ObjectMeta, 2 rules [PolicyRule], 3 aggregationRule AggregationRule*
AggregationRule 1 clusterRoleSelectors [LabelSelector]
PolicyRule 1 verbs [s], 2 apiGroups [s], 3 resources [s], 4 resourceNames [s], 5 nonResourceURLs [s]
RoleBinding 1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef
ClusterRoleBinding 1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef
Subject 1 kind s, 2 apiGroup s, 3 name s, 4 namespace s
RoleRef 1 apiGroup s, 2 kind s, 3 name s
PodDisruptionBudget 1 metadata ObjectMeta, 2 spec PodDisruptionBudgetSpec, 3 status -
PodDisruptionBudgetSpec 1 minAvailable x*, 2 selector LabelSelector*, 3 maxUnavailable x*, 4 unhealthyPodEvictionPolicy s*
Eviction 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions*
PriorityClass 1 metadata ObjectMeta, 2 value i, 3 globalDefault b, 4 description s, 5 preemptionPolicy s*

SelfSubjectAccessReview 1 metadata ObjectMeta, 2 spec AccessReviewSpec, 3 status -
AccessReviewSpec 1 resourceAttributes ResourceAttributes*, 2 nonResourceAttributes NonResourceAttributes*
ResourceAttributes 1 namespace s, 2 verb s, 3 group s, 4 version s, 5 resource s, 6 subresource s, 7 name s
NonResourceAttributes 1 path s, 2 verb s
SelfSubjectRulesReview 1 metadata ObjectMeta, 2 spec RulesReviewSpec, 3 status -
RulesReviewSpec 1 namespace s
SelfSubjectReview 1 metadata ObjectMeta, 2 status -
TokenRequest 1 metadata ObjectMeta, 2 spec TokenRequestSpec, 3 status -
TokenRequestSpec 1 audiences [s], 3 boundObjectRef BoundObjectReference*, 4 expirationSeconds i*
BoundObjectReference 1 kind s, 2 apiVersion s, 3 name s, 4 uid s
";

static TABLE: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = MESSAGES.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, fields)| (name, fields.split(", ").filter_map(field).collect())).collect()
});

/// The fields of a message.
pub(super) fn message(name: &str) -> Option<&'static [Field]> {
    TABLE.get(name).map(Vec::as_slice)
}

fn field(text: &'static str) -> Option<Field> {
    let mut parts = text.split(' ');
    let (number, name, kind) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let (kind, pointer) = match kind.strip_suffix('*') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    let item = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']'));
    let entry = kind.strip_prefix('{').and_then(|kind| kind.strip_suffix('}'));
    let kind = match entry {
        Some(entry) => Kind::Map(Box::new(self::kind(entry))),
        None => self::kind(item.unwrap_or(kind)),
    };
    Some(Field { number, name: name.to_owned(), kind, repeated: item.is_some(), pointer })
}

fn kind(text: &'static str) -> Kind {
    match text {
        "s" => Kind::Text,
        "i" => Kind::Number,
        "b" => Kind::Truth,
        "y" => Kind::Bytes,
        "time" => Kind::Time,
        "q" => Kind::Quantity,
        "x" => Kind::IntOrString,
        "-" => Kind::Ignored,
        other => match other.strip_prefix('&') {
            Some(inline) => Kind::Inline(inline),
            None => Kind::Message(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let fields: usize = MESSAGES.lines().filter(|line| !line.is_empty()).map(|line| line.split(", ").count()).sum();
        assert_eq!(TABLE.values().map(Vec::len).sum::<usize>(), fields);
        for (name, fields) in TABLE.iter() {
            for field in fields {
                let inner = match &field.kind {
                    Kind::Map(inner) => inner,
                    other => other,
                };
                if let Kind::Message(inner) | Kind::Inline(inner) = inner {
                    assert!(message(inner).is_some(), "{name}.{} is a {inner}", field.name);
                }
            }
        }
    }
}
