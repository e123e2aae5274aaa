//! Runs the controllers against the cluster of the current kubeconfig, until interrupted.

use udn_lab_controllers::{Options, run};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let client = kube::Client::try_default().await?;
    run(client, Options::default()).await?;
    Ok(())
}
