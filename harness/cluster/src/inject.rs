//! Makes fixtures runnable here: labels, node slots, and what the agent needs in a pod. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use udn_model::naming::Naming;
use udn_model::world::{NODE_LABEL, PROBE_CONTAINER, VM_KIND};

use crate::error::Error;
use crate::external_ips;
use crate::names::{AGENT_DIRECTORY, RUN_LABEL, WORLD_LABEL};

/// What fixtures are made into.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    pub(crate) run: String,
    pub(crate) instance: String,
    /// Names of the nodes by slot.
    pub(crate) nodes: Vec<String>,
    /// The image of the probe container, where another than the fixture's is wanted.
    pub(crate) image: Option<String>,
    /// The image that guests are started from, where another than the fixture's is wanted.
    pub(crate) guest_image: Option<String>,
    /// What the fixtures' external addresses stand for.
    pub(crate) external_ips: BTreeMap<IpAddr, IpAddr>,
}

impl Injection {
    /// The manifest to apply: real names, labels, and for a pod with a probe container what the agent needs.
    ///
    /// # Errors
    /// The manifest is not an object, or its node slot is no number.
    pub(crate) fn manifest(&self, naming: &Naming, manifest: &Value) -> Result<Value, Error> {
        let mut real = naming.manifest(manifest);
        let problem = |problem: &str| Error::Manifest { object: describe(manifest), problem: problem.into() };
        let labels = labels(&mut real).ok_or_else(|| problem("metadata.labels must be an object"))?;
        labels.insert(RUN_LABEL.into(), self.run.as_str().into());
        labels.insert(WORLD_LABEL.into(), self.instance.as_str().into());
        match real["kind"].as_str() {
            Some("Namespace") => {
                // The agent's raw capture needs NET_RAW, which stricter levels forbid.
                labels_of(&mut real)
                    .map(|labels| labels.insert("pod-security.kubernetes.io/enforce".into(), "privileged".into()));
            }
            Some("Service") => external_ips::replace(&mut real, &self.external_ips),
            Some("Pod") => self.pod(&mut real).map_err(|text| problem(&text))?,
            Some(VM_KIND) => self.vm(&mut real).map_err(|text| problem(&text))?,
            _ => {}
        }
        Ok(real)
    }

    fn pod(&self, pod: &mut Value) -> Result<(), String> {
        if let Some(slot) = pod["metadata"]["labels"].get(NODE_LABEL) {
            let slot: Option<usize> = slot.as_str().and_then(|slot| slot.parse().ok());
            let slot = slot.ok_or_else(|| format!("label {NODE_LABEL} must be a number"))?;
            let node = self.node(slot).ok_or("the cluster has no node for it")?;
            pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] = node.into();
        }
        let containers = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
        let Some(probe) = containers.into_iter().flatten().find(|container| container["name"] == PROBE_CONTAINER)
        else {
            return Ok(());
        };
        equip(probe, self.image.as_deref())?;
        push(&mut pod["spec"], "volumes", json!({ "name": "udn-agent", "emptyDir": {} }))
    }

    /// A VM's launcher pods carry the labels of its template. The node is a wish: a node selector would go with the VM and
    /// keep it from every other node.
    fn vm(&self, vm: &mut Value) -> Result<(), String> {
        let Some(template) = vm["spec"].get_mut("template").filter(|template| template.is_object()) else {
            return Err("spec.template must be an object".into());
        };
        let labels = labels(template).ok_or("spec.template.metadata must be an object")?;
        labels.insert(RUN_LABEL.into(), self.run.as_str().into());
        labels.insert(WORLD_LABEL.into(), self.instance.as_str().into());
        if let Some(slot) = labels.get(NODE_LABEL) {
            let slot: Option<usize> = slot.as_str().and_then(|slot| slot.parse().ok());
            let slot = slot.ok_or_else(|| format!("label {NODE_LABEL} must be a number"))?;
            let node = self.node(slot).ok_or("the cluster has no node for it")?.to_owned();
            let on =
                |values: &[String]| json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": values }]);
            template["spec"]["affinity"]["nodeAffinity"] = json!({
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{ "matchExpressions": on(&self.nodes) }] },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    { "weight": 100, "preference": { "matchExpressions": on(&[node]) } }],
            });
        }
        if let Some(image) = &self.guest_image
            && let Some(container) = template.pointer_mut("/spec/domain/firmware/kernelBoot/container")
        {
            container["image"] = image.as_str().into();
        }
        Ok(())
    }

    /// The node of a slot. A cluster with fewer nodes has several slots on one: cells that need two are skipped there.
    pub(crate) fn node(&self, slot: usize) -> Option<&str> {
        self.nodes.get(slot.checked_rem(self.nodes.len())?).map(String::as_str)
    }
}

/// Gives a container what the agent needs.
pub(crate) fn equip(container: &mut Value, image: Option<&str>) -> Result<(), String> {
    push(container, "volumeMounts", json!({ "name": "udn-agent", "mountPath": AGENT_DIRECTORY }))?;
    if !container["securityContext"].is_object() {
        container["securityContext"] = json!({});
    }
    if !container["securityContext"]["capabilities"].is_object() {
        container["securityContext"]["capabilities"] = json!({});
    }
    push(&mut container["securityContext"]["capabilities"], "add", "NET_RAW".into())?;
    if let Some(image) = image {
        container["image"] = image.into();
    }
    Ok(())
}

fn push(object: &mut Value, field: &str, item: Value) -> Result<(), String> {
    match &mut object[field] {
        slot @ Value::Null => *slot = Value::Array(vec![item]),
        Value::Array(items) => {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        _ => return Err(format!("{field} must be a list")),
    }
    Ok(())
}

fn labels(manifest: &mut Value) -> Option<&mut Map<String, Value>> {
    if !manifest["metadata"].is_object() {
        return None;
    }
    labels_of(manifest)
}

fn labels_of(manifest: &mut Value) -> Option<&mut Map<String, Value>> {
    let labels = &mut manifest["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    labels.as_object_mut()
}

fn describe(manifest: &Value) -> String {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    format!("{} {}", text("/kind"), text("/metadata/name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection() -> Injection {
        Injection {
            run: "k3v9".into(),
            instance: "a".into(),
            nodes: vec!["w1".into(), "w2".into()],
            image: None,
            guest_image: None,
            external_ips: BTreeMap::new(),
        }
    }

    fn pod(slot: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "a", "namespace": "blue", "labels": { NODE_LABEL: slot } },
            "spec": { "containers": [
                { "name": "other", "image": "x" },
                { "name": "probe", "image": "agnhost", "args": ["pause"] } ] } })
    }

    #[test]
    fn a_pod_gets_names_labels_node_volume_and_capability() {
        let real = injection().manifest(&Naming::new("k3v9a"), &pod("1")).unwrap();
        assert_eq!(real["metadata"]["namespace"], "k3v9a-blue");
        assert_eq!(real["metadata"]["labels"][RUN_LABEL], "k3v9");
        assert_eq!(real["metadata"]["labels"][WORLD_LABEL], "a");
        assert_eq!(real["spec"]["nodeSelector"]["kubernetes.io/hostname"], "w2");
        assert_eq!(real["spec"]["volumes"], json!([{ "name": "udn-agent", "emptyDir": {} }]));
        let probe = &real["spec"]["containers"][1];
        assert_eq!(probe["volumeMounts"], json!([{ "name": "udn-agent", "mountPath": "/udn" }]));
        assert_eq!(probe["securityContext"]["capabilities"]["add"], json!(["NET_RAW"]));
        assert_eq!(probe["image"], "agnhost");
        assert_eq!(real["spec"]["containers"][0], json!({ "name": "other", "image": "x" }));
    }

    #[test]
    fn another_image_may_be_chosen_and_slots_wrap_around() {
        let injection = Injection { image: Some("mirror/agnhost".into()), nodes: vec!["only".into()], ..injection() };
        let real = injection.manifest(&Naming::new("k3v9a"), &pod("1")).unwrap();
        assert_eq!(real["spec"]["containers"][1]["image"], "mirror/agnhost");
        assert_eq!(real["spec"]["nodeSelector"]["kubernetes.io/hostname"], "only");
    }

    #[test]
    fn a_vm_wishes_for_its_node_and_may_leave_it() {
        let vm = json!({ "apiVersion": "kubevirt.io/v1", "kind": VM_KIND, "metadata": { "name": "db", "namespace": "red" },
            "spec": { "template": { "metadata": { "labels": { NODE_LABEL: "1" } },
                "spec": { "domain": { "firmware": { "kernelBoot": { "container": { "image": "x" } } } } } } } });
        let injection = Injection { guest_image: Some("mirror/guest".into()), ..injection() };
        let real = injection.manifest(&Naming::new("k3v9a"), &vm).unwrap();
        let template = &real["spec"]["template"];
        assert_eq!(template["metadata"]["labels"][RUN_LABEL], "k3v9");
        let affinity = &template["spec"]["affinity"]["nodeAffinity"];
        let preferred = &affinity["preferredDuringSchedulingIgnoredDuringExecution"][0]["preference"];
        assert_eq!(preferred["matchExpressions"][0]["values"], json!(["w2"]));
        assert!(template["spec"]["nodeSelector"].is_null());
        assert_eq!(template["spec"]["domain"]["firmware"]["kernelBoot"]["container"]["image"], "mirror/guest");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = injection().manifest(&Naming::new("x"), &pod("first")).unwrap_err();
        assert_eq!(error.to_string(), "manifest of Pod a: label udn-conformance.io/node must be a number");
        let mut odd = pod("0");
        odd["spec"]["volumes"] = json!("none");
        assert!(
            injection().manifest(&Naming::new("x"), &odd).unwrap_err().to_string().contains("volumes must be a list")
        );
    }

    #[test]
    fn namespaces_allow_the_capture() {
        let manifest = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "blue" } });
        let real = injection().manifest(&Naming::new("k3v9a"), &manifest).unwrap();
        assert_eq!(real["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
        assert_eq!(real["metadata"]["name"], "k3v9a-blue");
    }
}
