//! The columns of the built-in kinds' tables.

use super::Column;
use crate::resources::Resource;

const NAME: Column = ("Name", "string", false);
const AGE: Column = ("Age", "string", false);

const fn text_column(name: &'static str) -> Column {
    (name, "string", false)
}

const fn wide(name: &'static str) -> Column {
    (name, "string", true)
}

const fn number(name: &'static str) -> Column {
    (name, "integer", false)
}

const CONTAINERS: Column = wide("Containers");
const IMAGES: Column = wide("Images");
const SELECTOR: Column = wide("Selector");

/// The columns of a kind.
pub(super) fn columns(resource: &Resource) -> &'static [Column] {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => {
            const {
                &[
                    NAME,
                    text_column("Ready"),
                    text_column("Status"),
                    text_column("Restarts"),
                    AGE,
                    wide("IP"),
                    wide("Node"),
                    wide("Nominated Node"),
                    wide("Readiness Gates"),
                ]
            }
        }
        ("", "Namespace") => const { &[NAME, text_column("Status"), AGE] },
        ("", "Node") => {
            const {
                &[
                    NAME,
                    text_column("Status"),
                    text_column("Roles"),
                    AGE,
                    text_column("Version"),
                    wide("Internal-IP"),
                    wide("External-IP"),
                    wide("OS-Image"),
                    wide("Kernel-Version"),
                    wide("Container-Runtime"),
                ]
            }
        }
        ("", "Service") => {
            const {
                &[
                    NAME,
                    text_column("Type"),
                    text_column("Cluster-IP"),
                    text_column("External-IP"),
                    text_column("Port(s)"),
                    AGE,
                    SELECTOR,
                ]
            }
        }
        ("", "Endpoints") => const { &[NAME, text_column("Endpoints"), AGE] },
        ("", "ConfigMap") => const { &[NAME, number("Data"), AGE] },
        ("", "Secret") => const { &[NAME, text_column("Type"), number("Data"), AGE] },
        ("", "ServiceAccount") => const { &[NAME, number("Secrets"), AGE] },
        ("", "PersistentVolumeClaim") => {
            const {
                &[
                    NAME,
                    text_column("Status"),
                    text_column("Volume"),
                    text_column("Capacity"),
                    text_column("Access Modes"),
                    text_column("StorageClass"),
                    AGE,
                ]
            }
        }
        ("" | "events.k8s.io", "Event") => {
            const {
                &[
                    text_column("Last Seen"),
                    text_column("Type"),
                    text_column("Reason"),
                    text_column("Object"),
                    wide("Subobject"),
                    wide("Source"),
                    text_column("Message"),
                    wide("First Seen"),
                    wide("Count"),
                    ("Name", "string", true),
                ]
            }
        }
        ("apps", "Deployment") => {
            const {
                &[
                    NAME,
                    text_column("Ready"),
                    number("Up-to-date"),
                    number("Available"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            }
        }
        ("apps", "ReplicaSet") => {
            const { &[NAME, number("Desired"), number("Current"), number("Ready"), AGE, CONTAINERS, IMAGES, SELECTOR] }
        }
        ("apps", "StatefulSet") => const { &[NAME, text_column("Ready"), AGE, CONTAINERS, IMAGES] },
        ("apps", "DaemonSet") => {
            const {
                &[
                    NAME,
                    number("Desired"),
                    number("Current"),
                    number("Ready"),
                    number("Up-to-date"),
                    number("Available"),
                    text_column("Node Selector"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            }
        }
        ("apps", "ControllerRevision") => const { &[NAME, text_column("Controller"), number("Revision"), AGE] },
        ("batch", "Job") => {
            const {
                &[
                    NAME,
                    text_column("Status"),
                    text_column("Completions"),
                    text_column("Duration"),
                    AGE,
                    CONTAINERS,
                    IMAGES,
                    SELECTOR,
                ]
            }
        }
        ("batch", "CronJob") => {
            const {
                &[
                    NAME,
                    text_column("Schedule"),
                    text_column("Timezone"),
                    text_column("Suspend"),
                    number("Active"),
                    text_column("Last Schedule"),
                    AGE,
                ]
            }
        }
        ("networking.k8s.io", "NetworkPolicy") => const { &[NAME, text_column("Pod-Selector"), AGE] },
        ("discovery.k8s.io", "EndpointSlice") => {
            const { &[NAME, text_column("AddressType"), text_column("Ports"), text_column("Endpoints"), AGE] }
        }
        ("coordination.k8s.io", "Lease") => const { &[NAME, text_column("Holder"), AGE] },
        ("policy", "PodDisruptionBudget") => {
            const {
                &[
                    NAME,
                    text_column("Min Available"),
                    text_column("Max Unavailable"),
                    number("Allowed Disruptions"),
                    AGE,
                ]
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            const { &[NAME, text_column("Role"), AGE] }
        }
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => const { &[NAME, text_column("Created At")] },
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            const { &[NAME, number("Validations"), text_column("ParamKind"), AGE] }
        }
        ("admissionregistration.k8s.io", _) => {
            const { &[NAME, text_column("PolicyName"), text_column("ParamRef"), AGE] }
        }
        _ => const { &[NAME, AGE] },
    }
}
