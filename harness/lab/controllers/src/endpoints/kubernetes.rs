//! The service `default/kubernetes`, by which pods reach the API server. On a cluster with an API server of its own
//! that server writes it; in the lab we do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Client;
use kube::api::{ObjectMeta, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;

use super::SERVICE_NAME;
use super::desired::Family;
use crate::Error;
use crate::cache::Key;
use crate::objects::{Kind, MANAGER, failed};

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// First pause after a failure; doubles up to 100 times that.
const PAUSE: Duration = Duration::from_millis(20);

/// How the API server is reached from pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesService {
    /// ClusterIPs of the service, the primary family first. Default: 10.96.0.1 and fd00:10:96::1, the first addresses
    /// of the lab's service ranges.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses of the API server.
    pub addresses: Vec<IpAddr>,
    /// Port of the API server. Default: 6443.
    pub port: u16,
}

impl Default for KubernetesService {
    fn default() -> Self {
        Self {
            cluster_ips: vec![
                Ipv4Addr::new(10, 96, 0, 1).into(),
                Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1).into(),
            ],
            addresses: Vec::new(),
            port: 6443,
        }
    }
}

/// Writes the service and its endpoints once, trying until the API server takes them.
pub(crate) async fn run(client: Client, wanted: KubernetesService) {
    let mut pause = PAUSE;
    while let Err(error) = write(&client, &wanted).await {
        tracing::debug!(%error, "the service default/kubernetes could not be written yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE * 100);
    }
}

async fn write(client: &Client, wanted: &KubernetesService) -> Result<(), Error> {
    apply(client, NAME, &service(wanted)).await?;
    for (family, name) in [(Family::V4, NAME.to_owned()), (Family::V6, format!("{NAME}-ipv6"))] {
        if let Some(slice) = slice(wanted, family, &name) {
            apply(client, &name, &slice).await?;
        }
    }
    if let Some(endpoints) = endpoints(wanted) {
        apply(client, NAME, &endpoints).await?;
    }
    Ok(())
}

async fn apply<K: Kind>(client: &Client, name: &str, object: &K) -> Result<(), Error> {
    let mut value = encode(name, object)?;
    value["apiVersion"] = json!(K::api_version(&()));
    value["kind"] = json!(K::kind(&()));
    let applied =
        K::api(client, NAMESPACE).patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(value)).await;
    applied.map(drop).map_err(|error| failed::<K>("apply", &Key::new(NAMESPACE, name), error))
}

fn encode<T: Serialize>(name: &str, object: &T) -> Result<serde_json::Value, Error> {
    serde_json::to_value(object).map_err(|source| Error::Encode { object: name.to_owned(), source })
}

fn meta(name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn family(address: &IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn service(wanted: &KubernetesService) -> Service {
    let texts: Vec<String> = wanted.cluster_ips.iter().map(ToString::to_string).collect();
    let families = wanted.cluster_ips.iter().map(|ip| family(ip).as_str().to_owned()).collect();
    let policy = if texts.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    Service {
        metadata: meta(NAME, &[("component", "apiserver"), ("provider", "kubernetes")]),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: texts.first().cloned(),
            cluster_ips: Some(texts),
            ip_families: Some(families),
            ip_family_policy: Some(policy.to_owned()),
            session_affinity: Some("None".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: 443,
                target_port: Some(IntOrString::Int(wanted.port.into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn slice(wanted: &KubernetesService, of: Family, name: &str) -> Option<EndpointSlice> {
    let addresses: Vec<_> = wanted.addresses.iter().filter(|ip| family(ip) == of).collect();
    if addresses.is_empty() {
        return None;
    }
    let endpoint = |address: &&IpAddr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    Some(EndpointSlice {
        metadata: meta(name, &[(SERVICE_NAME, NAME)]),
        address_type: of.as_str().to_owned(),
        endpoints: addresses.iter().map(endpoint).collect(),
        ports: Some(vec![EndpointPort {
            name: Some("https".to_owned()),
            protocol: Some("TCP".to_owned()),
            port: Some(wanted.port.into()),
            app_protocol: None,
        }]),
    })
}

/// The old object knows the primary family only.
fn endpoints(wanted: &KubernetesService) -> Option<Endpoints> {
    let primary = wanted.cluster_ips.first().map(family)?;
    let addresses: Vec<EndpointAddress> = wanted
        .addresses
        .iter()
        .filter(|ip| family(ip) == primary)
        .map(|ip| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() })
        .collect();
    let ports = vec![LegacyPort {
        name: Some("https".to_owned()),
        protocol: Some("TCP".to_owned()),
        port: wanted.port.into(),
        app_protocol: None,
    }];
    (!addresses.is_empty()).then(|| Endpoints {
        metadata: meta(NAME, &[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(addresses),
            not_ready_addresses: None,
            ports: Some(ports),
        }]),
    })
}
