//! What the lab adds to an API server that was there before: the machines' API, which that server aggregates. It is served on the
//! host's loopback, where an API service by way of a service named after a host (`ExternalName`) leads.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use axum::Router;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::wait::Condition;
use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;
use udn_lab_machines::{API_GROUP, API_VERSION};

use super::joined::Joined;
use super::objects::{create, create_json, until};
use crate::error::Error;
use crate::pki::Authority;

/// As with KubeVirt.
const NAMESPACE: &str = "kubevirt";
const NAME: &str = "virt-api";
/// Where the service leads.
const HOST: &str = "localhost";

/// Serves the machines' API on a listener of the host and has the server aggregate it; waits until it does. Returns whether the
/// server aggregates APIs at all.
pub(super) async fn offer(
    joined: &Joined,
    authority: &Authority,
    (listener, port): (TcpListener, u16),
    machines: Router,
    problems: UnboundedSender<String>,
) -> Result<bool, Error> {
    let client = &joined.client;
    let services = Api::<APIService>::all(client.clone());
    match services.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            tracing::warn!("the API server aggregates no APIs: there are no virtual machines");
            return Ok(false);
        }
        Err(error) => return Err(Error::inside("look for API services")(error)),
    }
    let tls = {
        let (name, host) = (format!("{NAME}.{NAMESPACE}.svc"), Ipv4Addr::LOCALHOST.into());
        joined.aggregated(authority, &[&name, HOST], &[host])?
    };
    tokio::spawn(async move {
        if let Err(error) = udn_lab_node::serve_https(listener, Arc::new(tls), machines).await {
            let _ = problems.send(format!("the machines' API stopped: {error}"));
        }
    });
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.into());
    create(&Api::all(client.clone()), &namespace).await?;
    let service = json!({
        "metadata": {"name": NAME},
        "spec": {"type": "ExternalName", "externalName": HOST, "ports": [{"port": port, "protocol": "TCP"}]},
    });
    create_json::<Service>(client, NAMESPACE, service).await?;
    let api_service = json!({
        "metadata": {"name": format!("{API_VERSION}.{API_GROUP}")},
        "spec": {
            "group": API_GROUP, "version": API_VERSION, "groupPriorityMinimum": 1000, "versionPriority": 15,
            "caBundle": k8s_openapi::ByteString(authority.pem().as_bytes().to_vec()),
            "service": {"namespace": NAMESPACE, "name": NAME, "port": port},
        },
    });
    let api_service: APIService =
        serde_json::from_value(api_service).map_err(Error::inside("describe an API service"))?;
    create(&services, &api_service).await?;
    let name = format!("{API_VERSION}.{API_GROUP}");
    until(&services, &name, available(), format!("API service {name} to be available")).await?;
    Ok(true)
}

fn available() -> impl Condition<APIService> {
    |service: Option<&APIService>| {
        let conditions = service.and_then(|service| service.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Available" && one.status == "True"))
    }
}
