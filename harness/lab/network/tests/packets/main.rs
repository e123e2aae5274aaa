//! Real packets through real OVN: brings the ground, an API server and the network up, without kubelets, and connects
//! from everywhere to everywhere. Needs what the lab needs (namespaces, the packages of Open vSwitch and OVN); fails where
//! they are missing.
//!
//! `UDN_PACKETS_LOG=udn_lab_network=debug` shows what the network does, with times.
//! `UDN_PACKETS_ONLY=policies` leaves the other parts out: see [`scenarios::PARTS`].
//! `UDN_PACKETS_PAUSE=1` keeps the lab up after the tests until its standard input ends, for a look around.

mod claims;
mod cluster;
mod frames;
mod guest;
mod machine;
mod policies;
mod probe;
mod scenarios;
mod services;
mod vms;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use udn_lab_sys::ground::Ground;
use udn_lab_sys::packages;
use udn_lab_sys::sandbox::{self, Sandbox, Spec, preflight};
use udn_lab_sys::site::Tools;

const INSIDE: &str = "__packets";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = sandbox::internal(&args) {
        return code;
    }
    // A harness' questions: there is one test, and it is not a benchmark.
    if args.iter().any(|arg| arg == "--list") {
        println!("packets: test");
        return ExitCode::SUCCESS;
    }
    let result = match args.get(1).and_then(|arg| arg.to_str()) {
        Some(INSIDE) => match &args[2..] {
            [tree, part] => inside(tree.clone(), &part.to_string_lossy()),
            _ => Err(anyhow::anyhow!("{INSIDE} wants a tree and a part")),
        },
        _ => outside(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Every part in a sandbox of its own, all at once: they mostly wait for what must not come.
fn outside() -> Result<()> {
    preflight::check()?;
    let packages = packages::ensure(&packages::default_folder(), &|_| {})?;
    let host = packages.tools.root == std::path::Path::new("/");
    let tree: OsString = if host { "/".into() } else { sandbox::TREE.into() };
    let only = std::env::var("UDN_PACKETS_ONLY").ok();
    let parts: Vec<&str> =
        scenarios::PARTS.into_iter().filter(|part| only.as_ref().is_none_or(|it| it == part)).collect();
    ensure!(!parts.is_empty(), "UDN_PACKETS_ONLY is none of {}", scenarios::PARTS.join(", "));
    let mut sandboxes = Vec::new();
    for part in parts {
        let main = vec![INSIDE.into(), tree.clone(), part.into()];
        sandboxes.push((part, Sandbox::spawn(&Spec { tree: packages.image_root.clone(), main }, None)?));
    }
    let mut bad = Vec::new();
    for (part, mut sandbox) in sandboxes {
        while sandbox.event().is_ok() {}
        let status = sandbox.wait()?;
        if !status.success() {
            bad.push(format!("the sandbox of {part} ended with {status}"));
        }
    }
    if bad.is_empty() { Ok(()) } else { bail!("{}", bad.join("; ")) }
}

fn inside(tree: OsString, part: &str) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("UDN_PACKETS_LOG"))
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let ground = Ground::up(Tools { root: tree.into() }, &|_| {}).await?;
        let result = scenarios::run(ground.site(), part).await;
        let problems = ground.health();
        if std::env::var_os("UDN_PACKETS_PAUSE").is_some() {
            println!("paused; result: {result:?}");
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("pausing")?;
        }
        result?;
        if problems.is_empty() { Ok(()) } else { bail!("daemons complain: {}", problems.join("; ")) }
    })
}
