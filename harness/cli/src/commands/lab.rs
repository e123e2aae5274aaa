//! `lab up`, `down`, `status`, `kubeconfig`, `exec`.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use anyhow::{Context, anyhow};
use udn_lab::{Error, Lab, Running, Status};
use udn_model::verdict::ExitCode;
use udn_reports::text;

use crate::args::{self, Format};
use crate::failure::{Failure, printed};
use crate::reporting::Reporting;
use crate::{interrupt, target};

/// How often a lab in the foreground is looked at, whether it is still there.
const GLANCE: Duration = Duration::from_millis(500);

/// Starts a lab.
///
/// # Errors
/// What the host lacks, or what failed inside.
pub(crate) async fn up(args: &args::LabUp) -> Result<ExitCode, Failure> {
    let cache = udn_lab::default_folder();
    let name = args.name.name.clone();
    if let Ok(running) = udn_lab::find(&cache, &name) {
        print(&format!(
            "lab {name} is up already\n{}",
            directions(&name, &running.kubeconfig().display().to_string())
        ))?;
        return Ok(ExitCode::Passed);
    }
    let cancel = interrupt::watch().context("cannot watch for Ctrl-C").map_err(Failure::setup)?;
    let reporting = Reporting::progress_only();
    let options = udn_lab::Options {
        cache,
        name: Some(name.clone()),
        background: !args.foreground,
        udn_allowed_default_services: args.udn_allowed_default_services.clone(),
        api_server: args.api_server.clone(),
    };
    let started = tokio::select! {
        started = target::start(options, reporting.events()) => Some(started),
        () = cancel.cancelled() => None,
    };
    reporting.end().await;
    let Some(started) = started else { return Ok(ExitCode::Interrupted) };
    let lab: Lab = started?;
    print(&directions(&name, &lab.kubeconfig().display().to_string()))?;
    if args.foreground {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = gone(&name) => {
                eprintln!("lab {name} is gone: it was taken down, or killed");
                return Ok(ExitCode::Passed);
            }
        }
        let kept = tokio::task::spawn_blocking(move || lab.stop())
            .await
            .context("ending the lab ended early")
            .map_err(Failure::setup)?
            .map_err(Failure::lab)?;
        tell_kept(&kept);
    }
    Ok(ExitCode::Passed)
}

/// Returns once no lab of this name is up any more.
async fn gone(name: &str) {
    let cache = udn_lab::default_folder();
    while !matches!(udn_lab::find(&cache, name), Err(Error::NotUp { .. })) {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Ends a lab.
///
/// # Errors
/// None of that name is up, or it does not end.
pub(crate) fn down(args: &args::LabName) -> Result<ExitCode, Failure> {
    tell_kept(&udn_lab::down(&udn_lab::default_folder(), &args.name).map_err(Failure::lab)?);
    Ok(ExitCode::Passed)
}

/// What a lab that is gone had to leave at an API server.
fn tell_kept(kept: &[String]) {
    for one in kept {
        eprintln!("stays at the API server: {one}");
    }
}

/// Says how a lab is.
///
/// # Errors
/// It does not answer.
pub(crate) fn status(args: &args::LabStatus) -> Result<ExitCode, Failure> {
    let cache = udn_lab::default_folder();
    let running = match udn_lab::find(&cache, &args.name.name) {
        Ok(running) => running,
        Err(Error::NotUp { name }) => {
            let others: Vec<_> = udn_lab::list(&cache).iter().map(|running| running.name().to_owned()).collect();
            let others = if others.is_empty() { String::new() } else { format!("; up are: {}", others.join(", ")) };
            match args.format {
                Format::Text => print(&format!("no lab named {name} is up{others}\n"))?,
                Format::Json => print("null\n")?,
            }
            return Ok(ExitCode::Failed);
        }
        Err(error) => return Err(Failure::lab(error)),
    };
    let status = running.status().map_err(Failure::lab)?;
    match args.format {
        Format::Text => print(&described(&running, &status))?,
        Format::Json => {
            let json =
                serde_json::to_string_pretty(&status).context("cannot write the status").map_err(Failure::setup)?;
            print(&format!("{json}\n"))?;
        }
    }
    Ok(if status.problems.is_empty() { ExitCode::Passed } else { ExitCode::Errors })
}

/// Prints where a lab's kubeconfig is.
///
/// # Errors
/// None of that name is up.
pub(crate) fn kubeconfig(args: &args::LabName) -> Result<ExitCode, Failure> {
    let running = udn_lab::find(&udn_lab::default_folder(), &args.name).map_err(Failure::lab)?;
    print(&format!("{}\n", running.kubeconfig().display()))?;
    Ok(ExitCode::Passed)
}

/// Becomes a program inside a lab; its exit code is the program's.
///
/// # Errors
/// No such lab or place, or the program cannot be started.
pub(crate) fn exec(args: &args::LabExec) -> Result<ExitCode, Failure> {
    let mut command = udn_lab::command(&udn_lab::default_folder(), &args.name.name, &args.node, &args.command)
        .map_err(Failure::lab)?;
    // Returns only where it fails.
    Err(Failure::setup(anyhow!(command.exec()).context("cannot enter the lab")))
}

/// How to use a lab that is up.
fn directions(name: &str, kubeconfig: &str) -> String {
    let option = if name == args::LAB_NAME { String::new() } else { format!(" --name {name}") };
    format!(
        "export KUBECONFIG={kubeconfig}\n\
         # kubectl get pods -A\n\
         # udn-conformance lab exec{option} ovn-worker -- ovs-vsctl show\n\
         # udn-conformance lab down{option}\n"
    )
}

fn described(running: &Running, status: &Status) -> String {
    let mut lines = vec![
        (
            "lab",
            format!(
                "{}, up for {}, ready in {}",
                status.name,
                text::duration(status.uptime_s * 1_000),
                text::duration(status.ready_ms)
            ),
        ),
        ("server", status.server.clone()),
        ("kubeconfig", running.kubeconfig().display().to_string()),
        ("log", running.log().display().to_string()),
        (
            "network",
            format!(
                "OVN {}, Open vSwitch {} ({})",
                status.versions.ovn, status.versions.open_vswitch, status.versions.origin
            ),
        ),
    ];
    lines.extend(status.nodes.iter().map(|node| ("node", format!("{} {} {}", node.name, node.ipv4, node.ipv6))));
    lines.push(("daemons", text::number(status.daemons.len())));
    match status.problems.as_slice() {
        [] => lines.push(("sound", "yes".into())),
        problems => lines.extend(problems.iter().map(|problem| ("problem", problem.clone()))),
    }
    lines.extend(status.mended.iter().map(|mended| ("mended", mended.clone())));
    lines.into_iter().map(|(name, value)| format!("{name:>10}  {value}\n")).collect()
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}
