//! The API server that a lab joins: reached from inside through a relay on the host, and able to reach the node agents on the
//! host's loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{LogParams, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use rustls::ServerConfig;
use serde_json::json;
use tokio::net::UnixStream;
use udn_lab_sys::ground::NODES;
use udn_lab_sys::site::NodeSite;

use super::api::PORT;
use crate::error::Error;
use crate::existing::ApiServer;
use crate::pki::Authority;

/// Where Kubernetes says whose client certificates count: of users and API servers, and of API servers that pass requests on.
const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
const CLIENTS: &str = "client-ca-file";
const FRONT_PROXIES: &str = "requestheader-client-ca-file";
/// Before the next connection is taken where one could not be.
const BREATH: Duration = Duration::from_millis(50);

/// A server that was there before.
pub(super) struct Joined {
    relay: PathBuf,
    pub(super) existing: ApiServer,
    pub(super) client: Client,
    /// PEM texts of those whose client certificates are accepted, where the server says.
    accepted: BTreeMap<String, String>,
    /// Whose work is done already.
    pub(super) others: Others,
}

/// Control-plane parts that run beside the server, as their leases tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// kube-controller-manager.
    pub(super) controllers: bool,
    /// kube-scheduler.
    pub(super) scheduler: bool,
}

impl Joined {
    /// Makes the server reachable on the lab's own loopback and asks it what the lab must know.
    pub(super) async fn start(existing: ApiServer, relay: PathBuf) -> Result<Self, Error> {
        let own =
            TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).map_err(Error::inside("listen on its own loopback"))?;
        forward(own, relay.clone())?;
        let client = client(&existing).await?;
        let refuse = |reason: String| Error::Join { url: existing.url.clone(), reason };
        let version = client.apiserver_version().await.map_err(|error| refuse(error.to_string()))?;
        tracing::info!(url = existing.url, version = version.git_version, "joining an API server");
        may_do_everything(&client).await.map_err(refuse)?;
        has_no_lab(&client).await.map_err(refuse)?;
        has_our_addresses(&client).await.map_err(refuse)?;
        let accepted = accepted(&client).await.map_err(refuse)?;
        for (key, who) in [(CLIENTS, "node agents let"), (FRONT_PROXIES, "the machines' API lets")] {
            if !accepted.contains_key(key) {
                tracing::warn!("the API server has no {key}: {who} in everybody who reaches this host's loopback");
            }
        }
        let others = Others {
            controllers: is_led(&client, "kube-controller-manager").await.map_err(refuse)?,
            scheduler: is_led(&client, "kube-scheduler").await.map_err(refuse)?,
        };
        Ok(Self { relay, existing, client, accepted, others })
    }

    /// Makes the server reachable at the control plane node too: that is where pods find it.
    pub(super) fn join(&self, control_plane: &NodeSite) -> Result<(), Error> {
        let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT));
        let listener = control_plane.netns.run(bind).and_then(|listener| listener);
        forward(
            listener.map_err(Error::inside(format!("listen on {}:{PORT}", control_plane.name)))?,
            self.relay.clone(),
        )
    }

    /// Whether the server gets through to the node agents, by what one of them has of a pod's log.
    pub(super) async fn reaches_node_agents(&self, namespace: &str, pod: &str) -> Result<(), Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let Err(error) = pods.logs(pod, &LogParams::default()).await else { return Ok(()) };
        let told = match error {
            kube::Error::Api(status) => status.message,
            error => error.to_string(),
        };
        Err(Error::Join {
            url: self.existing.url.clone(),
            reason: format!(
                "it does not get through to the lab's node agents ({told}); they are at localhost, as addresses of type \
                 Hostname: start it with these first in --kubelet-preferred-address-types, with \
                 --kubelet-client-certificate signed by one of --client-ca-file, and without \
                 --kubelet-certificate-authority"
            ),
        })
    }

    /// The TLS side of a node agent, for whom the server says.
    pub(super) fn node_agent(&self, authority: &Authority, node: &NodeSite) -> Result<ServerConfig, Error> {
        let addresses = [node.ipv4.into(), node.ipv6.into(), Ipv4Addr::LOCALHOST.into()];
        self.serving(CLIENTS, authority, &[node.name.as_str(), "localhost"], &addresses)
    }

    /// The TLS side of an API that the server passes requests on to.
    pub(super) fn aggregated(
        &self,
        authority: &Authority,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<ServerConfig, Error> {
        self.serving(FRONT_PROXIES, authority, names, addresses)
    }

    fn serving(
        &self,
        clients: &str,
        authority: &Authority,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<ServerConfig, Error> {
        match self.accepted.get(clients) {
            Some(pem) => authority.server_for_clients_of(pem, names, addresses),
            None => authority.server(names, addresses),
        }
    }
}

async fn client(existing: &ApiServer) -> Result<Client, Error> {
    let config = Config::from_custom_kubeconfig(existing.kubeconfig.clone(), &KubeConfigOptions::default()).await;
    let mut config = config.map_err(Error::inside("configure a client"))?;
    let scheme = config.cluster_url.scheme_str().unwrap_or("https").to_owned();
    config.cluster_url = format!("{scheme}://127.0.0.1:{PORT}").parse().map_err(Error::inside("configure a client"))?;
    config.tls_server_name.get_or_insert_with(|| existing.host.clone());
    config.proxy_url = None;
    Client::try_from(config).map_err(Error::inside("make a client"))
}

/// Carries each connection to the relay's socket.
fn forward(listener: TcpListener, relay: PathBuf) -> Result<(), Error> {
    let prepare = || {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let listener = prepare().map_err(Error::inside("lead to the API server"))?;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // No descriptor is free at this moment.
                tokio::time::sleep(BREATH).await;
                continue;
            };
            let relay = relay.clone();
            tokio::spawn(async move {
                let carried = carry(stream, &relay).await;
                if let Err(error) = carried {
                    tracing::debug!(%error, "a connection to the API server ended");
                }
            });
        }
    });
    Ok(())
}

async fn carry(mut stream: tokio::net::TcpStream, relay: &Path) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut outside = UnixStream::connect(relay).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut outside).await.map(drop)
}

/// The lab's controllers need every right.
async fn may_do_everything(client: &Client) -> Result<(), String> {
    let everything = ResourceAttributes {
        group: Some("*".into()),
        resource: Some("*".into()),
        verb: Some("*".into()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(everything), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
    if answer.status.is_some_and(|status| status.allowed) {
        return Ok(());
    }
    Err("its user may not do everything: name a kubeconfig of a user with the role cluster-admin".into())
}

/// Two labs would be the same nodes.
async fn has_no_lab(client: &Client) -> Result<(), String> {
    for name in NODES {
        if is_fresh(client, "kube-node-lease", name).await? {
            return Err(format!("it has a node {name}, which is alive: end the lab that it is of, or wait a minute"));
        }
    }
    Ok(())
}

/// Services of both families, where the lab's network leads.
async fn has_our_addresses(client: &Client) -> Result<(), String> {
    let ranges: [IpNet; 2] = [
        IpNet::new_assert(Ipv4Addr::new(10, 96, 0, 0).into(), 16),
        IpNet::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0).into(), 112),
    ];
    let [v4, v6] = ranges;
    let remedy = format!(
        "the lab's network leads to services at {v4} and {v6}: start it with --service-cluster-ip-range={v4},{v6}"
    );
    let tried = json!({
        "metadata": {"generateName": "udn-lab-", "namespace": "default"},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]},
    });
    let tried: Service = serde_json::from_value(tried).map_err(|error| error.to_string())?;
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let made = services.create(&PostParams { dry_run: true, ..PostParams::default() }, &tried).await;
    let given = match made {
        Ok(service) => service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default(),
        Err(kube::Error::Api(status)) => return Err(format!("{}; {remedy}", status.message)),
        Err(error) => return Err(error.to_string()),
    };
    let leads =
        |address: &String| address.parse::<IpAddr>().is_ok_and(|it| ranges.iter().any(|range| range.contains(&it)));
    if given.len() == ranges.len() && given.iter().all(leads) {
        return Ok(());
    }
    Err(format!("it gives services the addresses {}, but {remedy}", given.join(" and ")))
}

async fn accepted(client: &Client) -> Result<BTreeMap<String, String>, String> {
    let (namespace, name) = AUTHENTICATION;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let map = maps.get_opt(name).await.map_err(|error| error.to_string())?;
    Ok(map.and_then(|map| map.data).unwrap_or_default())
}

/// Whether a part of the control plane holds its lease.
async fn is_led(client: &Client, name: &str) -> Result<bool, String> {
    is_fresh(client, "kube-system", name).await
}

async fn is_fresh(client: &Client, namespace: &str, name: &str) -> Result<bool, String> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(name).await.map_err(|error| error.to_string())?;
    Ok(lease.is_some_and(|lease| counts(&lease, Timestamp::now())))
}

fn counts(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let held = spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    held && spec.renew_time.as_ref().is_some_and(|time| now.duration_since(time.0) < SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_while_its_holder_renews_it() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let lease = |renewed: &str, holder: &str| -> Lease {
            let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed});
            serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap()
        };
        assert!(counts(&lease("2026-01-01T00:00:50.000000Z", "a"), now));
        assert!(!counts(&lease("2026-01-01T00:00:40.000000Z", "a"), now), "its time is over");
        assert!(!counts(&lease("2026-01-01T00:00:50.000000Z", ""), now), "it was given back");
        assert!(!counts(&Lease::default(), now));
    }
}
