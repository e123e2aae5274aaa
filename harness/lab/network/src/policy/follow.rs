//! The controller's side: the world as its caches and its state have it, and commits that take policies along.

use kube::ResourceExt;
use serde_json::Value;
use udn_api::names;

use super::change::{Applied, Ports, Row};
use super::plan::{self, OWNER_TYPE, OWNER_TYPES};
use super::rules::Policy;
use super::world::{Member, NodePort, Scope, World};
use crate::annotation::Role;
use crate::controller::Controller;
use crate::controller::pods::takes_part;
use crate::error::Error;
use crate::layout::Layout;
use crate::naming::DEFAULT_NETWORK;
use crate::ovsdb::follow::map_value;
use crate::ovsdb::{Client, Transaction};
use crate::topology::switches::management_addresses;

/// What a transaction does to a pod's ports.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Upcoming<'a> {
    Nothing,
    /// So many ports of this pod are its first rows, in the order of the attachments. The state knows them once it is
    /// committed.
    Adds {
        pod: &'a str,
        ports: usize,
    },
    /// The ports of this pod go.
    Removes(&'a str),
}

impl Controller {
    /// Makes policies, labels and namespaces as they are now take effect.
    pub(crate) async fn reconcile_policies(&self) -> Result<(), Error> {
        let _guard = self.rebuilding.read().await;
        self.commit_with_policies("following network policies", Transaction::default(), Upcoming::Nothing).await?;
        self.put_leftovers_right().await
    }

    /// Commits `transaction` together with what policies make of the state after it, so that a pod is never there without
    /// them. Returns the UUIDs of inserted rows, those of `transaction` first.
    pub(crate) async fn commit_with_policies(
        &self,
        purpose: &str,
        mut transaction: Transaction,
        upcoming: Upcoming<'_>,
    ) -> Result<Vec<String>, Error> {
        let mut applied = self.policies_applied.lock().await;
        let (world, ports) = self.policy_world(upcoming);
        let plan = plan::plan(&world);
        let next = applied.change(&plan, &ports, &mut transaction);
        tracing::debug!(purpose, policies = world.policies.len(), groups = plan.groups.len(), ports = ports.len());
        let uuids = self.northbound.commit(purpose, transaction).await?;
        *applied = next.settled(&uuids);
        // Before anybody else plans: who does not know of the ports would take them out of their groups again.
        if let Upcoming::Adds { pod, ports } = upcoming
            && let Some(known) = self.state().pods.get_mut(pod)
        {
            known.ports = uuids.iter().take(ports).cloned().collect();
        }
        Ok(uuids)
    }

    /// Once every pod has been looked at, what a former life left and nothing stands for can go.
    async fn put_leftovers_right(&self) -> Result<(), Error> {
        let mut applied = self.policies_applied.lock().await;
        if !applied.has_leftovers() || !self.all_pods_decided() {
            return Ok(());
        }
        let mut next = applied.clone();
        let mut transaction = Transaction::default();
        next.put_leftovers_right(&mut transaction);
        self.northbound.commit("clearing away what is left of network policies", transaction).await?;
        *applied = next;
        Ok(())
    }

    fn all_pods_decided(&self) -> bool {
        let state = self.state();
        let decided =
            |key: &str| state.waiting.contains_key(key) || state.pods.get(key).is_some_and(|pod| !pod.ports.is_empty());
        self.pods
            .all()
            .iter()
            .filter(|pod| takes_part(pod))
            .all(|pod| decided(&crate::controller::cache::key_of(pod.as_ref())))
    }

    fn policy_world(&self, upcoming: Upcoming<'_>) -> (World, Ports) {
        let policies: Vec<Policy> = self.policies.all().iter().map(|policy| Policy::read(policy)).collect();
        if policies.is_empty() {
            return (World::default(), Ports::default());
        }
        let mut world = World { policies, nodes: node_ports(&self.default_network), ..World::default() };
        let mut ports = Ports::default();
        let mut state = self.state();
        for namespace in self.namespaces.all() {
            let labels = namespace.labels().clone();
            let network = if labels.contains_key(names::PRIMARY_NETWORK_LABEL) {
                state.primary_of(&namespace.name_any()).map(|(_, definition)| definition.name.clone())
            } else {
                Some(DEFAULT_NETWORK.to_owned())
            };
            world.namespaces.insert(namespace.name_any(), Scope { labels, network });
        }
        for (key, known) in &mut state.pods {
            let adding = matches!(upcoming, Upcoming::Adds { pod, .. } if pod == key);
            let removing = matches!(upcoming, Upcoming::Removes(pod) if pod == key);
            if let Some(pod) = self.pods.get(key).filter(|pod| pod.uid().as_ref() == Some(&known.uid)) {
                known.pod = pod;
            }
            let Some(position) = known.attachments.iter().position(|it| it.role == Role::Primary) else { continue };
            let row = match (known.ports.get(position), adding) {
                (_, true) => Row::New(position),
                (Some(uuid), false) if !removing => Row::Known(uuid.clone()),
                _ => continue,
            };
            let Some(attachment) = known.attachments.get(position) else { continue };
            ports.insert(attachment.port.clone(), row);
            let namespace = known.pod.namespace().unwrap_or_default();
            world.members.entry(namespace).or_default().push(Member {
                pod: known.pod.clone(),
                network: attachment.network.clone(),
                port: attachment.port.clone(),
                addresses: attachment.ips(),
            });
        }
        (world, ports)
    }
}

/// Groups and sets that a former life of the controller left.
pub(crate) async fn leftovers(northbound: &Client) -> Result<Applied, Error> {
    let mut found = Vec::new();
    for table in ["Port_Group", "Address_Set"] {
        let rows = northbound.select_all(table, &["name", "external_ids"]).await?;
        let ours = |row: &Value| {
            let kind = map_value(&row["external_ids"], OWNER_TYPE);
            kind.is_some_and(|kind| OWNER_TYPES.contains(&kind)).then(|| row["name"].as_str().map(str::to_owned))?
        };
        found.push(rows.iter().filter_map(ours).collect::<Vec<_>>());
    }
    let sets = found.pop().unwrap_or_default();
    Ok(Applied::leftovers(found.pop().unwrap_or_default(), sets))
}

fn node_ports(default_network: &Layout) -> Vec<NodePort> {
    let port = |node: &crate::layout::Node| {
        let subnets = default_network.subnets(node).ok()?;
        let (_, addresses) = management_addresses(default_network, &subnets);
        let addresses = addresses.iter().map(ipnet::IpNet::addr).collect();
        Some(NodePort { port: format!("k8s-{}", node.name), addresses })
    };
    default_network.nodes.iter().filter_map(port).collect()
}
