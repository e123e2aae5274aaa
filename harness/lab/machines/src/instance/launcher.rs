//! The launcher pod: what stands for a machine among the pods of its node. Labels and annotations are KubeVirt's, by which
//! networks, services and policies know it.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Map, Value, json};
use udn_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceMigration, names};

use crate::context::Context;
use crate::emulator::memory;
use crate::error::Error;
use crate::guest;

/// Memory of a machine that says none, MiB.
const DEFAULT_MIB: u64 = 96;
/// What a launcher asks of its node besides the guest's memory, MiB.
const OVERHEAD_MIB: u64 = 110;

/// What of a machine is not to be had here.
///
/// # Errors
/// With what was asked for.
pub(crate) fn check(instance: &VirtualMachineInstance) -> Result<(), Error> {
    let boot = instance.spec.domain.firmware.as_ref().and_then(|firmware| firmware.kernel_boot.as_ref());
    let image = boot.and_then(|boot| boot.container.as_ref()).map(|container| container.image.as_str());
    match image {
        None => Err(Error::Unsupported {
            asked: "this one has no spec.domain.firmware.kernelBoot.container".into(),
            has: "one way to start: a kernel from the image udn-conformance.local/guest",
        }),
        Some(image) if !guest::Image::is(image) => Err(Error::Unsupported {
            asked: format!("this one starts from {image}"),
            has: "one way to start: a kernel from the image udn-conformance.local/guest",
        }),
        Some(_) => Ok(()),
    }
}

/// The guest's memory, MiB.
pub(crate) fn memory_mib(instance: &VirtualMachineInstance) -> u64 {
    let domain = &instance.spec.domain;
    let guest = domain.memory.as_ref().and_then(|memory| memory.guest.as_deref());
    let requested = || domain.other.get("resources")?["requests"]["memory"].as_str();
    guest.or_else(requested).and_then(memory::mib).unwrap_or(DEFAULT_MIB)
}

/// Creates a launcher pod; `migration`: for the target of one.
pub(crate) async fn create(
    context: &Context,
    instance: &VirtualMachineInstance,
    networks: &[(String, String)],
    migration: Option<&VirtualMachineInstanceMigration>,
) -> Result<Pod, Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let name = format!("virt-launcher-{}-{}", instance.name_any(), suffix());
    let action = format!("create launcher pod {namespace}/{name}");
    let pod = serde_json::from_value(manifest(instance, &name, networks, migration));
    let pod: Pod = pod.map_err(|error| Error::Network {
        action: "describe the machine".into(),
        pod: name.clone(),
        reason: error.to_string(),
    })?;
    let pods = Api::<Pod>::namespaced(context.client.clone(), &namespace);
    pods.create(&PostParams::default(), &pod).await.map_err(Error::request(action))
}

/// Deletes a launcher pod, at once. One that is gone already is no error.
pub(crate) async fn delete(context: &Context, namespace: &str, name: &str) -> Result<(), Error> {
    let pods = Api::<Pod>::namespaced(context.client.clone(), namespace);
    match pods.delete(name, &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop).map_err(Error::request(format!("delete launcher pod {namespace}/{name}"))),
    }
}

/// Five letters and digits, as generated names end.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}

fn manifest(
    instance: &VirtualMachineInstance,
    name: &str,
    networks: &[(String, String)],
    migration: Option<&VirtualMachineInstanceMigration>,
) -> Value {
    let (machine, uid) = (instance.name_any(), instance.uid().unwrap_or_default());
    let mut labels: Map<String, Value> =
        instance.labels().iter().filter(|(key, _)| *key != names::NODE_NAME).map(|(key, value)| (key.clone(), value.clone().into())).collect();
    for (key, value) in
        [(names::APP, names::LAUNCHER), (names::CREATED_BY, &uid), (names::VM_NAME, &machine), (names::DOMAIN, &machine)]
    {
        labels.insert(key.into(), value.into());
    }
    let mut annotations: Map<String, Value> = instance
        .annotations()
        .iter()
        .filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/"))
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    annotations.insert(names::DOMAIN.into(), machine.clone().into());
    annotations.insert("kubectl.kubernetes.io/default-container".into(), "compute".into());
    for (key, value) in networks {
        annotations.insert(key.clone(), value.clone().into());
    }
    let spec = &instance.spec;
    let mut selector = migration.and_then(|migration| migration.spec.added_node_selector.clone()).unwrap_or_default();
    selector.extend(spec.node_selector.clone().unwrap_or_default());
    let mut affinity = spec.affinity.as_ref().and_then(|one| serde_json::to_value(one).ok()).unwrap_or_else(|| json!({}));
    if let Some(migration) = migration {
        labels.insert(names::MIGRATION_JOB.into(), migration.uid().unwrap_or_default().into());
        annotations.insert(names::MIGRATION_JOB_NAME.into(), migration.name_any().into());
        let away = json!({
            "labelSelector": {"matchLabels": {names::CREATED_BY: uid}}, "topologyKey": "kubernetes.io/hostname",
        });
        let required = &mut affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        match required.as_array_mut() {
            Some(terms) => terms.push(away),
            None => *required = json!([away]),
        }
    }
    let image = spec.domain.firmware.as_ref().and_then(|firmware| firmware.kernel_boot.as_ref());
    let image = image.and_then(|boot| boot.container.as_ref()).map_or(guest::IMAGE, |container| container.image.as_str());
    let memory = format!("{}Mi", memory_mib(instance) + OVERHEAD_MIB);
    json!({
        "metadata": {
            "name": name, "labels": labels, "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": machine, "uid": uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "restartPolicy": "Never", "enableServiceLinks": false, "automountServiceAccountToken": false,
            "hostname": machine, "nodeSelector": selector, "affinity": affinity, "tolerations": spec.tolerations,
            "terminationGracePeriodSeconds": spec.termination_grace_period_seconds.unwrap_or(30),
            // Says whether there is such an image.
            "initContainers": [{"name": "kernel-boot", "image": image, "command": ["true"]}],
            "containers": [{
                "name": "compute", "image": format!("quay.io/kubevirt/virt-launcher:{}", names::VERSION),
                "resources": {"requests": {"cpu": "100m", "memory": memory}},
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "red", "uid": "u1", "labels": {"app": "db"}},
            "spec": {
                "nodeSelector": {"a": "b"},
                "domain": {
                    "memory": {"guest": "128Mi"}, "devices": {},
                    "firmware": {"kernelBoot": {"container": {"image": "udn-conformance.local/guest:latest"}}},
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_launcher_is_known_by_its_labels() {
        let pod = manifest(&instance(), "virt-launcher-db-x", &[("k8s.ovn.org/primary-udn-ipamclaim".into(), "db.default".into())], None);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let labels = pod.labels();
        for (key, value) in [("app", "db"), ("kubevirt.io", "virt-launcher"), ("vm.kubevirt.io/name", "db"), ("kubevirt.io/domain", "db")] {
            assert_eq!(labels[key], value);
        }
        assert_eq!(pod.annotations()["k8s.ovn.org/primary-udn-ipamclaim"], "db.default");
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_selector.unwrap()["a"], "b");
        assert_eq!(spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["memory"].0, "238Mi");
    }

    #[test]
    fn a_target_stays_away_from_its_source() {
        let mut migration = VirtualMachineInstanceMigration::new("m", Default::default());
        migration.metadata.uid = Some("job".into());
        migration.spec.added_node_selector = Some([("a".to_owned(), "x".to_owned()), ("c".to_owned(), "d".to_owned())].into());
        let pod: Pod = serde_json::from_value(manifest(&instance(), "x", &[], Some(&migration))).unwrap();
        assert_eq!(pod.labels()["kubevirt.io/migrationJobUID"], "job");
        let wanted = pod.spec.as_ref().unwrap().node_selector.clone().unwrap();
        assert_eq!(wanted, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())].into());
        let away = pod.spec.unwrap().affinity.unwrap().pod_anti_affinity.unwrap();
        let term = &away.required_during_scheduling_ignored_during_execution.unwrap()[0];
        assert_eq!(term.label_selector.as_ref().unwrap().match_labels.as_ref().unwrap()["kubevirt.io/created-by"], "u1");
    }

    #[test]
    fn what_cannot_be_started_is_said() {
        let mut other = instance();
        check(&other).unwrap();
        other.spec.domain.firmware = None;
        assert!(check(&other).unwrap_err().to_string().contains("kernelBoot"));
    }
}
