//! Annotations of nodes: subnets and numbers, as OVN-Kubernetes writes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use udn_api::names;

use super::Controller;
use crate::definition::Topology;
use crate::error::Error;
use crate::layout::Node;

impl Controller {
    pub(crate) async fn reconcile_node(&self, name: &str) -> Result<(), Error> {
        let (Some(node), Some(object)) = (self.node(name), self.nodes.get(name)) else { return Ok(()) };
        let wanted = self.node_annotations(node);
        let current = object.annotations();
        if wanted.iter().all(|(key, value)| current.get(*key) == Some(value)) {
            return Ok(());
        }
        let api: Api<KubeNode> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"annotations": wanted}}));
        match api.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(|_| ()).map_err(Error::api(format!("annotate the node {name}"))),
        }
    }

    fn node_annotations(&self, node: &Node) -> BTreeMap<&'static str, String> {
        let state = self.state();
        let ready = || state.networks.values().filter(|network| network.ready);
        let subnets: BTreeMap<&str, Vec<String>> = ready()
            .filter(|network| network.layout.definition.topology == Topology::Layer3)
            .filter_map(|network| Some((network.layout.name(), network.layout.subnets(node).ok()?)))
            .map(|(name, subnets)| (name, subnets.iter().map(ToString::to_string).collect()))
            .collect();
        let ids: BTreeMap<&str, String> =
            ready().map(|network| (network.layout.name(), network.layout.id.to_string())).collect();
        BTreeMap::from([
            (names::NODE_SUBNETS, json!(subnets).to_string()),
            (names::NETWORK_IDS, json!(ids).to_string()),
            (names::NODE_ID, (node.index + 1).to_string()),
            (names::LAYER2_TOPOLOGY_VERSION, "2.0".to_owned()),
        ])
    }
}
