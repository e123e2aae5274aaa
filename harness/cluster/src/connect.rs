//! From a kubeconfig to a client, and what the cluster behind it offers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, AttachParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config, ResourceExt};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use udn_model::cell::Feature;
use udn_model::dns::DNS_SERVICE;
use udn_model::plan::Environment;
use udn_model::words::Family;

use crate::component;
use crate::error::{Error, innermost};
use crate::external_ips;
use crate::lookups::Dns;
use crate::names::{EXTERNAL, LOAD_BALANCERS_LABEL, METALLB, VANTAGE_LABEL};
use crate::objects::{Objects, Real};
use crate::proxy;
use crate::services;
use crate::virtualization;

/// How long the API server is waited for at first.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long a pod of the network plugin is waited for when asked for its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(4);
/// How the harness calls itself to API servers.
const AGENT_NAME: &str = concat!("udn-conformance/", env!("CARGO_PKG_VERSION"));
/// The annotation in which OVN-Kubernetes keeps a node's subnets.
const NODE_SUBNETS: &str = "k8s.ovn.org/node-subnets";

/// Which cluster, and how.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    /// The kubeconfig; `None`: KUBECONFIG, `~/.kube/config`, or the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// The context; `None`: the current one.
    pub context: Option<String>,
    /// The image of probe containers, where the fixtures' cannot be pulled.
    pub image: Option<String>,
    /// The image that guests are started from, where it is not `udn-conformance.local/guest`.
    pub guest_image: Option<String>,
    /// The run's id, from [`crate::new_run_id`].
    pub run: String,
    /// Whether no vantage points in host networks are wanted: their pods are then not made.
    pub without_host_network: bool,
    /// How long pods may take to get ready; `None`: 120 s.
    pub ready_deadline: Option<Duration>,
    /// A name outside of the cluster that its DNS service knows and that has an IPv4 address.
    pub external_name: Option<String>,
}

/// A node for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The object's name.
    pub name: String,
    /// The label `kubernetes.io/hostname`.
    pub hostname: String,
    /// Addresses on the underlay.
    pub addresses: Vec<IpAddr>,
}

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub(crate) context: String,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) environment: Environment,
    /// By slot.
    pub(crate) nodes: Vec<NodeInfo>,
    /// The pod outside of the cluster.
    pub(crate) external: Option<Pod>,
    /// Addresses that services may claim.
    pub(crate) external_ips: Vec<IpNet>,
    /// ClusterIPs of the API server's service.
    pub(crate) api_server: Vec<IpAddr>,
    /// The DNS service and what is known of names.
    pub(crate) dns: Dns,
}

/// Makes a client.
///
/// # Errors
/// What is wrong with the kubeconfig.
pub(crate) async fn client(connect: &Connect) -> Result<(Client, String, String), Error> {
    let (mut config, context) = config(connect).await?;
    proxy::forget_where_not_meant(&mut config);
    if let Some(proxy) = &config.proxy_url {
        return Err(Error::Proxy { address: config.cluster_url.to_string(), proxy: proxy.to_string() });
    }
    let address = config.cluster_url.to_string();
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT_NAME)));
    config.connect_timeout = Some(FIRST_ANSWER);
    // Control streams are silent for as long as nothing is asked.
    config.read_timeout = None;
    let client = Client::try_from(config)
        .map_err(|source| Error::Client { address: address.clone(), source: Box::new(source) })?;
    Ok((client, address, context))
}

async fn config(connect: &Connect) -> Result<(Config, String), Error> {
    let kubeconfig = match &connect.kubeconfig {
        Some(path) => read(path)?,
        None => match Kubeconfig::read() {
            Ok(kubeconfig) => kubeconfig,
            Err(KubeconfigError::ReadConfig(source, path))
                if connect.context.is_some() || std::env::var_os("KUBECONFIG").is_some() =>
            {
                return Err(Error::KubeconfigFile { path, source });
            }
            Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath) => {
                let config = Config::incluster().map_err(|_| Error::NoKubeconfig)?;
                return Ok((config, "in-cluster".into()));
            }
            Err(other) => return Err(Error::kubeconfig(None, &other)),
        },
    };
    let known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let context = connect.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    if !known.contains(&context) {
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(if context.is_empty() { Error::NoContext { known } } else { Error::Context { context, known } });
    }
    let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Ok((config.map_err(|error| Error::kubeconfig(connect.kubeconfig.as_deref(), &error))?, context))
}

fn read(path: &Path) -> Result<Kubeconfig, Error> {
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::ReadConfig(source, path) => Error::KubeconfigFile { path, source },
        other => Error::kubeconfig(Some(path), &other),
    })
}

/// Finds out what the cluster offers.
///
/// # Errors
/// It cannot be reached, does not accept the credentials, or has no node.
pub(crate) async fn survey(
    objects: &Objects,
    address: &str,
    context: String,
    connect: &Connect,
) -> Result<Survey, Error> {
    let client = &objects.client;
    let mut versions = BTreeMap::new();
    versions.insert("Kubernetes".into(), kubernetes_version(client, address).await?);
    let nodes = nodes(client).await?;
    let (plugin, families, external, kinds, default_nad, api_server, servers, component, vms) = tokio::join!(
        plugin_versions(client),
        families(client),
        external(client),
        network_kinds(objects),
        default_attachment(objects),
        services::cluster_ips(objects, "default", "kubernetes"),
        services::cluster_ips(objects, DNS_SERVICE.0, DNS_SERVICE.1),
        component::may_be_restarted(client),
        virtualization::survey(objects, connect.guest_image.as_deref()),
    );
    versions.extend(plugin);
    versions.extend(vms.version.map(|version| ("KubeVirt".to_owned(), version)));
    let external = external?;
    let mut features: BTreeSet<Feature> = kinds?;
    features.extend(vms.features);
    if default_nad? {
        features.insert(Feature::StaticPrimaryAddress);
    }
    if external.is_some() {
        features.insert(Feature::ExternalVantagePoint);
    }
    if nodes.len() >= 2 {
        features.insert(Feature::TwoNodes);
    }
    features.insert(Feature::HostNetworkPods);
    if component {
        features.insert(Feature::NodeComponentPods);
    }
    if balances_load(client, external.as_ref()).await {
        features.insert(Feature::LoadBalancers);
    }
    let api_server = api_server?;
    for address in &api_server {
        features.insert(if address.is_ipv4() { Feature::ApiServerV4 } else { Feature::ApiServerV6 });
    }
    let dns = Dns::new(servers?, connect.external_name.as_deref(), external.as_ref());
    features.extend(dns.features());
    let (families, ranges) = (families?, external_ips::ranges(external.as_ref()));
    if external_ips::cover(&ranges, &families) {
        features.insert(Feature::ExternalIps);
    }
    let environment = Environment { features, families };
    Ok(Survey { context, versions, environment, nodes, external, external_ips: ranges, api_server, dns })
}

async fn kubernetes_version(client: &Client, address: &str) -> Result<String, Error> {
    let unreachable = |why: String| Error::Unreachable { address: address.into(), why };
    match timeout(FIRST_ANSWER, client.apiserver_version()).await {
        Ok(Ok(version)) => Ok(version.git_version),
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => Err(Error::Unauthorized { address: address.into() }),
        Ok(Err(error @ kube::Error::Api(_))) => Err(Error::api(format!("ask {address} for its version"), error)),
        Ok(Err(error)) => Err(unreachable(innermost(&error))),
        Err(_) => Err(unreachable(format!("no answer within {} s", FIRST_ANSWER.as_secs()))),
    }
}

/// Schedulable Ready nodes, by name: the slots.
async fn nodes(client: &Client) -> Result<Vec<NodeInfo>, Error> {
    let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let list = list.map_err(|error| Error::api("list nodes", error))?;
    let mut nodes: Vec<NodeInfo> = list.items.iter().filter(|node| is_schedulable(node)).map(node_info).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    if nodes.is_empty() { Err(Error::NoNodes) } else { Ok(nodes) }
}

fn is_schedulable(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let tainted =
        spec.taints.into_iter().flatten().any(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && !tainted && !spec.unschedulable.unwrap_or(false)
}

fn node_info(node: &Node) -> NodeInfo {
    let addresses = node.status.iter().filter_map(|status| status.addresses.as_ref()).flatten();
    let internal =
        addresses.filter(|address| address.type_ == "InternalIP").filter_map(|address| address.address.parse().ok());
    let hostname = node.labels().get("kubernetes.io/hostname").cloned().unwrap_or_else(|| node.name_any());
    NodeInfo { name: node.name_any(), hostname, addresses: internal.collect() }
}

/// Families of the default network: of a node's subnets, else of the cluster's own service.
async fn families(client: &Client) -> Result<Vec<Family>, Error> {
    let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let list = list.map_err(|error| Error::api("list nodes", error))?;
    let mut found: BTreeSet<Family> = list.items.iter().flat_map(node_families).collect();
    if found.is_empty()
        && let Ok(service) = Api::<Service>::namespaced(client.clone(), "default").get("kubernetes").await
    {
        let ips = service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
        found.extend(ips.iter().filter_map(|ip| ip.parse().ok()).map(Family::of));
    }
    Ok(if found.is_empty() { vec![Family::V4] } else { found.into_iter().collect() })
}

fn node_families(node: &Node) -> Vec<Family> {
    let annotated = node.annotations().get(NODE_SUBNETS).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut subnets: Vec<String> = match annotated.as_ref().map(|value| &value["default"]) {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    };
    if subnets.is_empty() {
        subnets = node.spec.clone().and_then(|spec| spec.pod_cidrs).unwrap_or_default();
    }
    let nets = subnets.iter().filter_map(|subnet| subnet.parse::<ipnet::IpNet>().ok());
    nets.map(|net| Family::of(net.addr())).collect()
}

async fn external(client: &Client) -> Result<Option<Pod>, Error> {
    let params = ListParams::default().labels(&format!("{VANTAGE_LABEL}={EXTERNAL}"));
    let list = Api::<Pod>::all(client.clone()).list(&params).await;
    let list = list.map_err(|error| Error::api("look for a vantage point outside the cluster", error))?;
    let running = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    Ok(list.items.into_iter().find(running))
}

/// Whether services of type LoadBalancer get addresses: MetalLB is there, or whoever placed the external vantage point
/// says so by a label on it.
async fn balances_load(client: &Client, external: Option<&Pod>) -> bool {
    let said = external.is_some_and(|pod| pod.labels().contains_key(LOAD_BALANCERS_LABEL));
    let groups =
        async || client.list_api_groups().await.is_ok_and(|list| list.groups.iter().any(|group| group.name == METALLB));
    said || groups().await
}

async fn network_kinds(objects: &Objects) -> Result<BTreeSet<Feature>, Error> {
    let serves = async |api_version: &str, kind: &str| {
        let object = Real {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: Some("default".into()),
            name: "x".into(),
        };
        objects.api(&object).await.is_ok()
    };
    let mut features = BTreeSet::new();
    let (fields, udn, cudn, nad, vtep, connect) = tokio::join!(
        transport_fields(objects),
        serves("k8s.ovn.org/v1", "UserDefinedNetwork"),
        serves("k8s.ovn.org/v1", "ClusterUserDefinedNetwork"),
        serves("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"),
        serves("k8s.ovn.org/v1", "VTEP"),
        serves("k8s.ovn.org/v1", "ClusterNetworkConnect"),
    );
    features.extend(fields?);
    if vtep {
        features.insert(Feature::Vteps);
    }
    if connect {
        features.insert(Feature::NetworkConnects);
    }
    if udn && cudn {
        features.insert(Feature::UserDefinedNetworks);
    }
    if nad {
        features.insert(Feature::MultiHoming);
    }
    Ok(features)
}

/// Transports that CUDNs can ask for, by the fields that their definition has: older releases lack them.
async fn transport_fields(objects: &Objects) -> Result<Vec<Feature>, Error> {
    let definition = Real {
        api_version: "apiextensions.k8s.io/v1".into(),
        kind: "CustomResourceDefinition".into(),
        namespace: None,
        name: "clusteruserdefinednetworks.k8s.ovn.org".into(),
    };
    let Some(definition) = seen(objects, &definition).await? else { return Ok(Vec::new()) };
    let versions = definition["spec"]["versions"].as_array();
    let served = versions.into_iter().flatten().find(|version| version["name"] == "v1");
    let network = served
        .and_then(|version| version.pointer("/schema/openAPIV3Schema/properties/spec/properties/network/properties"));
    let has = |field: &str| network.is_some_and(|fields| fields.get(field).is_some());
    let fields = [("noOverlay", Feature::NoOverlay), ("evpn", Feature::Evpn)];
    Ok(fields.into_iter().filter_map(|(field, feature)| has(field).then_some(feature)).collect())
}

/// The object, if it can be had. That it may not be looked at says nothing about it: cells would be skipped for a reason that
/// is none.
async fn seen(objects: &Objects, object: &Real) -> Result<Option<Value>, Error> {
    match objects.get(object).await {
        Err(error @ Error::MissingRight { .. }) => Err(error),
        found => Ok(found.unwrap_or_default()),
    }
}

async fn default_attachment(objects: &Objects) -> Result<bool, Error> {
    let object = Real {
        api_version: "k8s.cni.cncf.io/v1".into(),
        kind: "NetworkAttachmentDefinition".into(),
        namespace: Some("ovn-kubernetes".into()),
        name: "default".into(),
    };
    Ok(seen(objects, &object).await?.is_some())
}

/// Versions of the network plugin's parts, as far as one of its pods lets itself be asked.
async fn plugin_versions(client: &Client) -> BTreeMap<String, String> {
    let params = ListParams::default().labels("app=ovnkube-node");
    let Ok(pods) = Api::<Pod>::all(client.clone()).list(&params).await else { return BTreeMap::new() };
    let Some(pod) = pods.items.into_iter().next() else { return BTreeMap::new() };
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let ask = async |command: &[&str]| {
        timeout(VERSION_TIMEOUT, first_line(&api, &pod.name_any(), command)).await.ok().flatten()
    };
    let (plugin, ovn, ovs) = tokio::join!(
        // The lab has no such program, and is not of OVN-Kubernetes.
        ask(&["ovnkube", "--version"]),
        ask(&["ovn-nbctl", "--version"]),
        ask(&["ovs-vsctl", "--version"]),
    );
    let mut versions = BTreeMap::new();
    let last_word = |line: String| line.split_whitespace().last().map(str::to_owned);
    versions.extend(plugin.and_then(last_word).map(|version| ("OVN-Kubernetes".to_owned(), version)));
    versions.extend(ovn.and_then(last_word).map(|version| ("OVN".to_owned(), version)));
    versions.extend(ovs.and_then(last_word).map(|version| ("Open vSwitch".to_owned(), version)));
    versions
}

async fn first_line(pods: &Api<Pod>, pod: &str, command: &[&str]) -> Option<String> {
    let params = AttachParams { stdout: true, stderr: false, ..AttachParams::default() };
    let mut process = pods.exec(pod, command.iter().copied(), &params).await.ok()?;
    let mut text = String::new();
    process.stdout()?.take(4096).read_to_string(&mut text).await.ok()?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[rstest]
    #[case(json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }), true)]
    #[case(json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }), false)]
    #[case(json!({ "spec": { "unschedulable": true }, "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }), false)]
    #[case(json!({ "spec": { "taints": [{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }), false)]
    #[case(json!({ "spec": { "taints": [{ "key": "x", "effect": "PreferNoSchedule" }] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }), true)]
    fn slots_are_nodes_that_take_any_pod(#[case] value: Value, #[case] expected: bool) {
        assert_eq!(is_schedulable(&node(value)), expected);
    }

    #[rstest]
    #[case(json!({ "metadata": { "annotations": { NODE_SUBNETS: "{\"default\":[\"10.244.1.0/24\",\"fd00::/64\"]}" } } }), &[Family::V4, Family::V6])]
    #[case(json!({ "metadata": { "annotations": { NODE_SUBNETS: "{\"default\":\"10.244.1.0/24\"}" } } }), &[Family::V4])]
    #[case(json!({ "spec": { "podCIDRs": ["fd00::/64"] } }), &[Family::V6])]
    #[case(json!({}), &[])]
    fn families_of_nodes(#[case] value: Value, #[case] expected: &[Family]) {
        assert_eq!(node_families(&node(value)), expected);
    }

    fn kubeconfig(text: &str) -> (tempfile::TempDir, Connect) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, text).unwrap();
        (directory, Connect { kubeconfig: Some(path), ..Connect::default() })
    }

    const ONE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: one\ncontexts:\n- name: one\n  context: {cluster: c, user: u}\n\
        clusters:\n- name: c\n  cluster: {server: 'https://127.0.0.1:9'}\nusers:\n- name: u\n  user: {token: t}\n";

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let connect = Connect { kubeconfig: Some("/nowhere/config".into()), ..Connect::default() };
        let error = client(&connect).await.err().unwrap().to_string();
        assert!(error.contains("cannot read kubeconfig /nowhere/config") && error.contains("--kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn a_context_that_is_not_there_is_named_with_those_that_are() {
        let (_directory, mut connect) = kubeconfig(ONE);
        connect.context = Some("two".into());
        let error = client(&connect).await.err().unwrap().to_string();
        assert_eq!(error, "kubeconfig has no context `two`; it has one");
    }

    #[tokio::test]
    async fn what_is_no_kubeconfig_is_said() {
        let (directory, connect) = kubeconfig("{ not: [yaml");
        let error = client(&connect).await.err().unwrap().to_string();
        let path = directory.path().join("config");
        assert!(error.starts_with(&format!("kubeconfig {} cannot be used: ", path.display())), "{error}");
        assert!(error.contains("line 1") && !error.contains('\n'), "{error}");
    }

    #[tokio::test]
    async fn a_kubeconfig_without_a_current_context_says_which_there_are() {
        let (_directory, connect) = kubeconfig(&ONE.replace("current-context: one\n", ""));
        let error = client(&connect).await.err().unwrap().to_string();
        assert_eq!(error, "kubeconfig has no current context; choose one with --context: it has one");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_its_address() {
        let (_directory, connect) = kubeconfig(ONE);
        let (client, address, context) = client(&connect).await.unwrap();
        assert_eq!(context, "one");
        let error = survey(&Objects::new(client), &address, context, &connect).await.unwrap_err().to_string();
        assert!(error.starts_with("API server https://127.0.0.1:9/ cannot be reached: "), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
