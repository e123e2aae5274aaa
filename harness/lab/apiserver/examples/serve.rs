//! An API server to try things out: no nodes, no controllers.
//!
//! `cargo run -p udn-lab-apiserver --example serve -- --kubeconfig target/lab/kubeconfig`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use udn_lab_apiserver::testing::{NoKubelets, TestServer};

/// Serves the Kubernetes API until interrupted.
#[derive(Parser)]
struct Arguments {
    /// File to write the kubeconfig to.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    let server = TestServer::start_with(arguments.listen, Arc::new(NoKubelets)).await?;
    if let Some(folder) = arguments.kubeconfig.parent() {
        std::fs::create_dir_all(folder)?;
    }
    server.write_kubeconfig(&arguments.kubeconfig)?;
    println!("serving https://{}, kubeconfig {}", server.address, arguments.kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
