//! Pods: addresses, ports in OVN, annotations. The node side waits for what is decided here.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use udn_api::names;

use super::Controller;
use super::claims::claimed;
use super::plan::{self, Asking, Refusal};
use super::standing::{Standing, vm_of};
use super::state::PodState;
use crate::annotation::{self, Attachment, Role};
use crate::error::Error;
use crate::layout::Layout;
use crate::naming::{self, DEFAULT_NETWORK};
use crate::ovsdb::Transaction;
use crate::policy::Upcoming;
use crate::topology::{dhcp, isolation, ports};

/// The cluster's DNS service.
const DNS_SERVICE: &str = "kube-system/kube-dns";

impl Controller {
    pub(crate) async fn reconcile_pod(&self, key: &str) -> Result<(), Error> {
        let known = self.state().pods.get(key).and_then(|known| known.guest().map(str::to_owned));
        let told = self.pods.get(key).and_then(|pod| {
            let (namespace, vm) = (pod.namespace().unwrap_or_default(), vm_of(&pod)?);
            Some(naming::nad_key(&namespace, &vm))
        });
        let vm = told.or(known);
        // What a pod needs comes after what its virtual machine waits for.
        if let Some(vm) = &vm {
            self.hand_over(vm).await?;
        }
        self.attend_to_pod(key).await?;
        match &vm {
            Some(vm) => self.hand_over(vm).await,
            None => Ok(()),
        }
    }

    async fn attend_to_pod(&self, key: &str) -> Result<(), Error> {
        let pod = self.pods.get(key).filter(|pod| takes_part(pod));
        let uid = pod.as_ref().and_then(|pod| pod.uid());
        let known = self.state().pods.get(key).cloned();
        if let Some(known) = known {
            if Some(&known.uid) != uid.as_ref() {
                self.release_pod(key, known).await?;
            } else if known.ports.is_empty() {
                let Some(pod) = pod else { return Ok(()) };
                return self.provide(key, &pod, known).await;
            } else if let Some(pod) = pod {
                return self.apply_open_ports(key, &pod, known).await;
            }
        }
        let Some(pod) = pod else {
            self.state().waiting.remove(key);
            return Ok(());
        };
        match self.decide(key, &pod) {
            Ok(decided) => self.provide(key, &pod, decided).await,
            Err(Refusal::Wait(reason)) => {
                self.wait(key, reason);
                Ok(())
            }
            Err(Refusal::Refuse(denied, claim)) => {
                if self.wait(key, denied.message.clone()) {
                    self.warn(pod.as_ref(), "ErrorAllocatingPod", &denied.message).await;
                }
                match claim {
                    Some(claim) => self.tell_claim(&claim, &pod.name_any(), Err(&denied)).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Notes why a pod waits. Whether that is news.
    fn wait(&self, key: &str, reason: String) -> bool {
        let old = self.state().waiting.insert(key.to_owned(), reason.clone());
        self.pod_changed();
        old.is_none_or(|old| old != reason)
    }

    fn decide(&self, key: &str, pod: &Arc<Pod>) -> Result<PodState, Refusal> {
        let (namespace, name, uid) =
            (pod.namespace().unwrap_or_default(), pod.name_any(), pod.uid().unwrap_or_default());
        let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let node =
            self.node(&node_name).ok_or_else(|| Refusal::Wait(format!("node {node_name} is not one of the lab's")))?;
        // The watches of pods and namespaces are not in step: taking an unknown namespace for one without label would put
        // a tenant's pod on the default network.
        let known = self
            .namespaces
            .get(&namespace)
            .ok_or_else(|| Refusal::Wait(format!("namespace {namespace} is not known yet")))?;
        let labelled = known.labels().contains_key(names::PRIMARY_NETWORK_LABEL);
        let (vm, claim) = (vm_of(pod), self.claim_of(pod));
        let asking = Asking {
            namespace: &namespace,
            name: &name,
            uid: &uid,
            annotations: pod.annotations(),
            labelled,
            node,
            vm: vm.as_deref(),
            claim: claim.as_ref(),
        };
        let mut state = self.state();
        let attachments = plan::attachments(&mut state, &asking)?;
        let standing = vm.map(|vm| self.standing_of(&state, pod, &naming::nad_key(&namespace, &vm)));
        state.decisions += 1;
        let decided = PodState {
            uid,
            pod: pod.clone(),
            node: node_name,
            attachments,
            ports: Vec::new(),
            open_ports: None,
            standing: standing.unwrap_or_default(),
            decision: state.decisions,
        };
        state.pods.insert(key.to_owned(), decided.clone());
        Ok(decided)
    }

    /// Puts a pod's ports into OVN and its annotation onto the pod.
    async fn provide(&self, key: &str, pod: &Arc<Pod>, mut decided: PodState) -> Result<(), Error> {
        let _guard = self.rebuilding.read().await;
        let (transaction, ports) = self.port_transaction(key, &decided);
        let purpose = format!("attaching pod {key}");
        let claim = async {
            match claimed(&decided.attachments) {
                Some((claim, addresses)) => self.tell_claim(claim, &pod.name_any(), Ok(addresses)).await,
                None => Ok(()),
            }
        };
        let (made, annotated, claimed) = tokio::join!(
            self.commit_with_policies(&purpose, transaction, Upcoming::Adds { pod: key, ports }),
            self.annotate(pod, &decided.attachments),
            claim
        );
        if let Err(error) = made.and(annotated).and(claimed) {
            if let Some(known) = self.state().pods.get_mut(key) {
                known.ports.clear();
            }
            // A port of that name may be left from a former life; without it the next attempt succeeds.
            self.purge_ports(&decided.attachments).await?;
            return Err(error);
        }
        {
            let mut state = self.state();
            state.waiting.remove(key);
            if let Some(known) = state.pods.get(key) {
                decided.ports.clone_from(&known.ports);
            }
        }
        self.pod_changed();
        self.mirrors_with_pod_changed(key);
        self.apply_open_ports(key, pod, decided).await
    }

    fn port_transaction(&self, key: &str, decided: &PodState) -> (Transaction, usize) {
        let namespace = key.split('/').next().unwrap_or_default();
        let mut transaction = Transaction::default();
        let mut count = 0;
        let resolvers = self.resolvers();
        let state = self.state();
        for attachment in &decided.attachments {
            let Some(network) = state.networks.get(&attachment.network) else { continue };
            add_port(&mut transaction, &network.layout, namespace, decided, attachment);
            count += 1;
        }
        // After all ports: their rows are the transaction's first.
        for attachment in &decided.attachments {
            if let Some(network) = state.networks.get(&attachment.network) {
                add_dhcp(&mut transaction, &network.layout, attachment, &resolvers);
            }
        }
        (transaction, count)
    }

    /// The addresses of the cluster's DNS service.
    pub(crate) fn resolvers(&self) -> Vec<IpAddr> {
        let service = self.services.get(DNS_SERVICE);
        let addresses = service.as_ref().and_then(|service| service.spec.as_ref()?.cluster_ips.as_ref());
        addresses.into_iter().flatten().filter_map(|address| address.parse().ok()).collect()
    }

    async fn annotate(&self, pod: &Pod, attachments: &[Attachment]) -> Result<(), Error> {
        let value = annotation::pod_networks(attachments);
        if pod.annotations().get(names::POD_NETWORKS) == Some(&value) {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        // With the UID: a pod recreated under the same name must not get the addresses of its predecessor.
        let patch = json!({"metadata": {"uid": pod.uid(), "annotations": {names::POD_NETWORKS: value}}});
        match api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            result => result.map(|_| ()).map_err(Error::api(format!("annotate the pod {}", pod.name_any()))),
        }
    }

    async fn purge_ports(&self, attachments: &[Attachment]) -> Result<(), Error> {
        for attachment in attachments {
            let rows =
                self.northbound.select("Logical_Switch_Port", "name", &json!(attachment.port), &["_uuid"]).await?;
            for row in rows {
                let mut transaction = Transaction::default();
                transaction.push(json!({
                    "op": "mutate", "table": "Logical_Switch", "where": [["ports", "includes", row["_uuid"]]],
                    "mutations": [["ports", "delete", row["_uuid"]]],
                }));
                self.northbound.commit(&format!("removing the stale port {}", attachment.port), transaction).await?;
            }
            if attachment.guest.is_some() {
                let mut transaction = Transaction::default();
                dhcp::silence(&mut transaction, &attachment.port);
                self.northbound.commit(&format!("removing DHCP options of {}", attachment.port), transaction).await?;
            }
        }
        Ok(())
    }

    async fn release_pod(&self, key: &str, mut known: PodState) -> Result<(), Error> {
        let _guard = self.rebuilding.read().await;
        if let Some(current) = self.state().pods.get(key).filter(|current| current.uid == known.uid) {
            known.clone_from(current);
        }
        let mut transaction = match &known.open_ports {
            Some((_, acls)) if !acls.is_empty() => isolation::close_ports(acls),
            _ => Transaction::default(),
        };
        {
            let state = self.state();
            for (attachment, uuid) in known.attachments.iter().zip(&known.ports) {
                if let Some(network) = state.networks.get(&attachment.network) {
                    // What leads to the virtual machine may be another pod's by now.
                    let ips = if leads_here(&known, attachment) { attachment.ips() } else { Vec::new() };
                    ports::remove(&mut transaction, &network.layout, &known.node, uuid, &ips);
                }
                if attachment.guest.is_some() {
                    dhcp::silence(&mut transaction, &attachment.port);
                }
            }
        }
        self.commit_with_policies(&format!("detaching pod {key}"), transaction, Upcoming::Removes(key)).await?;
        {
            let mut state = self.state();
            if state.pods.get(key).is_some_and(|current| current.uid == known.uid) {
                state.pods.remove(key);
            }
            plan::release(&mut state, &known.uid, &known.attachments);
        }
        self.pod_changed();
        self.wake_waiting_pods();
        Ok(())
    }

    /// Makes the open-default-ports annotation take effect on a pod whose default-network address is closed.
    async fn apply_open_ports(&self, key: &str, pod: &Arc<Pod>, known: PodState) -> Result<(), Error> {
        let locked =
            known.attachments.iter().find(|it| it.nad == DEFAULT_NETWORK && it.role == Role::InfrastructureLocked);
        let Some(locked) = locked else { return Ok(()) };
        let text = pod.annotations().get(names::OPEN_DEFAULT_PORTS).cloned().unwrap_or_default();
        let (in_force, acls) = known.open_ports.unwrap_or_default();
        if text == in_force {
            return Ok(());
        }
        if !acls.is_empty() {
            self.northbound.commit(&format!("closing ports of pod {key}"), isolation::close_ports(&acls)).await?;
        }
        let parsed = if text.is_empty() { Ok(Vec::new()) } else { isolation::parse_open_ports(&text) };
        let opened = match parsed {
            Ok(ports) if ports.is_empty() => Vec::new(),
            Ok(ports) => {
                let transaction = isolation::open_ports(key, &locked.port, &ports);
                self.northbound.commit(&format!("opening ports of pod {key}"), transaction).await?
            }
            Err(reason) => {
                self.warn(pod.as_ref(), "ErrorUpdatingResource", &reason).await;
                Vec::new()
            }
        };
        if let Some(known) = self.state().pods.get_mut(key) {
            known.open_ports = Some((text, opened));
        }
        Ok(())
    }
}

/// Adds the port of one attachment of a pod of `namespace`.
pub(crate) fn add_port(
    transaction: &mut Transaction,
    layout: &Layout,
    namespace: &str,
    pod: &PodState,
    attachment: &Attachment,
) {
    let port = ports::PodPort {
        name: &attachment.port,
        namespace,
        uid: &pod.uid,
        node: &pod.node,
        nad: &attachment.nad,
        mac: attachment.mac,
        addresses: &attachment.ips(),
        locked: attachment.role == Role::InfrastructureLocked,
        plugged: leads_here(pod, attachment),
    };
    ports::add(transaction, layout, &port);
}

/// Makes OVN answer the guest behind an attachment, if there is one.
pub(crate) fn add_dhcp(transaction: &mut Transaction, layout: &Layout, attachment: &Attachment, resolvers: &[IpAddr]) {
    let Some(vm) = &attachment.guest else { return };
    let guest = dhcp::Guest {
        port: &attachment.port,
        vm,
        addresses: &attachment.addresses,
        gateways: &attachment.gateways,
        resolvers,
    };
    dhcp::answer(transaction, layout, &guest);
}

/// Whether an attachment's addresses are reached by this pod's port.
pub(crate) fn leads_here(pod: &PodState, attachment: &Attachment) -> bool {
    attachment.guest.is_none() || pod.standing == Standing::Active
}

/// Whether a pod needs the network now: it has a node, its own network namespace, and has not ended.
pub(crate) fn takes_part(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let placed = spec.and_then(|spec| spec.node_name.as_ref()).is_some();
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    placed && !host_network && !matches!(phase, Some("Succeeded" | "Failed"))
}
