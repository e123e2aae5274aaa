//! Starts a container: puts together what its process needs.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, SecurityContext};
use tokio::sync::{Mutex, watch};

use super::record::{PodCell, Run, State};
use super::sandbox::host_network;
use super::{environment, files};
use crate::container::job::{Creation, Job, Program, Step};
use crate::container::spawn::{SpawnError, Streams};
use crate::events::about;
use crate::images::{self, Contents, Image};
use crate::kubelet::Host;
use crate::output::{self, Output, Stream};
use crate::terminal::Terminal;
use crate::volumes::{self, Volumes};

/// Capabilities that container runtimes give unless told otherwise, by number in `linux/capability.h`: CHOWN,
/// DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
/// AUDIT_WRITE, SETFCAP.
const DEFAULT_CAPABILITIES: [u32; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
/// Names by number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Why a container could not be started.
pub(super) enum StartError {
    /// Its description cannot be followed (yet): a config map is missing, a mount has no volume.
    Configuration(String),
    /// Its process could not be started.
    Runtime(String),
}

/// Starts the container and notes that it runs.
pub(super) async fn start(
    host: &Arc<Host>,
    pod: &Arc<PodCell>,
    index: usize,
    container: &Container,
    image: &Image,
    volumes: &Volumes,
) -> Result<Arc<Run>, StartError> {
    let internal = |error: io::Error| StartError::Runtime(error.to_string());
    let identifier = identifier();
    let (creation, last_words) = describe(host, pod, container, image, volumes).await?;
    pod.update_container(index, |record| {
        record.image_id.clone_from(&image.id);
        record.image.clone_from(&image.reference);
        record.container_id = Some(identifier);
    });
    let reference = || about(&pod.arrival, Some(&container.name));
    host.events.normal(reference(), "Created", format!("Created container: {}", container.name));

    let sandbox = pod.sandbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sandbox) = sandbox else {
        return Err(StartError::Runtime("the pod's sandbox is gone".into()));
    };
    let namespace = std::os::fd::AsFd::as_fd(&sandbox.netns).try_clone_to_owned().map_err(internal)?;
    let program = creation.program.clone();
    let output = Output::new();
    let (done, drained) = watch::channel(false);
    let mut stdin = None;
    let mut readers = None;
    let streams = if program.terminal {
        None
    } else {
        let (stdout_reader, stdout) = output::pipe_from_process().map_err(internal)?;
        let (stderr_reader, stderr) = output::pipe_from_process().map_err(internal)?;
        readers = Some((stdout_reader, stderr_reader));
        let process_stdin = if container.stdin.unwrap_or(false) {
            let (writer, reader) = output::pipe_to_process().map_err(internal)?;
            stdin = Some(Mutex::new(Some(writer)));
            reader
        } else {
            output::nothing().map_err(internal)?
        };
        Some(Streams { stdin: process_stdin, stdout, stderr })
    };
    let (process, terminal) =
        host.spawner.spawn(Job::Create(creation), namespace, streams).await.map_err(|error| refused(&error))?;
    let terminal = terminal.map(Terminal::new).transpose().map_err(internal)?;
    collect(&output, readers, terminal.clone(), done);
    let run = Arc::new(Run { process, program, output, terminal, stdin, last_words, drained });
    let probes_startup = container.startup_probe.is_some();
    let probes_readiness = container.readiness_probe.is_some();
    pod.update_container(index, |record| {
        record.state = State::Running { since: Timestamp::now() };
        record.started = !probes_startup;
        record.ready = !probes_startup && !probes_readiness;
        record.previous_output = record.output.replace(Arc::clone(&run.output));
        record.run = Some(Arc::clone(&run));
    });
    host.events.normal(reference(), "Started", format!("Started container {}", container.name));
    Ok(run)
}

fn refused(error: &SpawnError) -> StartError {
    StartError::Runtime(format!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: unable to start \
         container process: {error}: unknown"
    ))
}

/// Reads what the container prints, until its end.
fn collect(
    output: &Arc<Output>,
    readers: Option<(tokio::net::unix::pipe::Receiver, tokio::net::unix::pipe::Receiver)>,
    terminal: Option<Terminal>,
    done: watch::Sender<bool>,
) {
    let output = Arc::clone(output);
    tokio::spawn(async move {
        if let Some((stdout, stderr)) = readers {
            tokio::join!(output.capture(Stream::Out, stdout), output.capture(Stream::Err, stderr));
        }
        if let Some(terminal) = terminal {
            let mut line = Vec::new();
            let mut chunk = vec![0; 32 * 1024];
            while let Ok(count @ 1..) = terminal.read(&mut chunk).await {
                output.take(Stream::Out, &chunk[..count], &mut line);
            }
        }
        done.send_replace(true);
    });
}

/// What to ask of the start-up program, and where the container may leave its last words.
async fn describe(
    host: &Host,
    pod: &PodCell,
    container: &Container,
    image: &Image,
    volumes: &Volumes,
) -> Result<(Creation, PathBuf), StartError> {
    let configuration = StartError::Configuration;
    let internal = |error: io::Error| StartError::Runtime(error.to_string());
    let latest = pod.latest();
    let env = environment::build(host, pod, &latest, container).await.map_err(configuration)?;
    let files = files::write(host, pod).map_err(internal)?;
    let last_words = volumes::directory(host, pod).join(format!("last-words-{}", container.name));
    std::fs::write(&last_words, "").map_err(internal)?;

    let security = container.security_context.as_ref();
    let privileged = security.and_then(|security| security.privileged).unwrap_or(false);
    let mut steps = images::private_directories();
    steps.extend(host.images.steps(image));
    steps.push(Step::Proc { writable: privileged });
    steps.push(Step::Sys { writable: privileged });
    steps.extend(images::devices(privileged));
    steps.extend(files.steps);
    let words_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    steps.push(Step::Bind { source: last_words.clone(), path: words_path.into(), read_only: false });
    steps.extend(volumes.mounts(container, &env).map_err(StartError::Configuration)?);

    let command = container.command.as_deref().filter(|command| !command.is_empty());
    let arguments = container.args.as_deref().filter(|arguments| !arguments.is_empty());
    let mut argv: Vec<String> = environment::expand_all(command.unwrap_or(&image.entrypoint), &env);
    match (command, arguments) {
        (_, Some(arguments)) => argv.extend(environment::expand_all(arguments, &env)),
        (None, None) => argv.extend(image.arguments.iter().cloned()),
        (Some(_), None) => {}
    }
    let spec = pod.arrival.spec.as_ref();
    let pod_security = spec.and_then(|spec| spec.security_context.as_ref());
    let user = security.and_then(|security| security.run_as_user).or(pod_security.and_then(|pod| pod.run_as_user));
    let group = security.and_then(|security| security.run_as_group).or(pod_security.and_then(|pod| pod.run_as_group));
    let mut groups: Vec<i64> = pod_security.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(pod_security.and_then(|pod| pod.fs_group));
    let terminal = container.tty.unwrap_or(false);
    let program = Program {
        argv,
        env: with_terminal(env, terminal),
        directory: container.working_dir.clone().unwrap_or_else(|| "/".into()),
        user: number(user),
        group: number(group),
        groups: groups.into_iter().map(|group| number(Some(group))).collect(),
        capabilities: capabilities(security),
        no_new_privileges: security.and_then(|security| security.allow_privilege_escalation) == Some(false),
        terminal,
    };
    let hostname = if host_network(&pod.arrival) { host.node.name.clone() } else { files.hostname };
    let creation = Creation {
        hostname,
        mount_point: volumes::directory(host, pod),
        steps,
        // The tools find daemons by their pid files, whose locks are kept by pid.
        host_pid: spec.and_then(|spec| spec.host_pid).unwrap_or(false) || image.contents == Contents::Ovn,
        read_only_root: security.and_then(|security| security.read_only_root_filesystem).unwrap_or(false),
        program,
    };
    Ok((creation, last_words))
}

/// The environment of a process with a terminal.
pub(crate) fn with_terminal(mut env: Vec<(String, String)>, terminal: bool) -> Vec<(String, String)> {
    if terminal && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".into(), "xterm".into()));
    }
    env
}

fn number(value: Option<i64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// The capabilities of a container as a kernel bit mask.
fn capabilities(security: Option<&SecurityContext>) -> u64 {
    if security.and_then(|security| security.privileged).unwrap_or(false) {
        return u64::MAX;
    }
    let bit = |name: &String| {
        let upper = name.to_uppercase();
        let name = upper.trim_start_matches("CAP_");
        if name == "ALL" {
            return (1 << CAPABILITIES.len()) - 1;
        }
        CAPABILITIES.iter().position(|known| *known == name).map_or(0, |number| 1u64 << number)
    };
    let asked = security.and_then(|security| security.capabilities.as_ref());
    let dropped =
        asked.and_then(|asked| asked.drop.as_ref()).into_iter().flatten().fold(0, |mask, name| mask | bit(name));
    let added = asked.and_then(|asked| asked.add.as_ref()).into_iter().flatten().fold(0, |mask, name| mask | bit(name));
    let usual = DEFAULT_CAPABILITIES.iter().fold(0, |mask, number| mask | 1u64 << number);
    (usual & !dropped) | added
}

/// A container id as runtimes give them: 64 hexadecimal digits.
fn identifier() -> String {
    let digits: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("lab://{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(value: serde_json::Value) -> SecurityContext {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn capabilities_are_the_usual_ones_less_and_more() {
        let net_raw = 1 << 13;
        let net_admin = 1 << 12;
        assert_eq!(capabilities(None) & (net_raw | net_admin), net_raw);
        let none = security(serde_json::json!({ "capabilities": { "drop": ["ALL"] } }));
        assert_eq!(capabilities(Some(&none)), 0);
        let one = security(serde_json::json!({ "capabilities": { "drop": ["all"], "add": ["CAP_NET_ADMIN"] } }));
        assert_eq!(capabilities(Some(&one)), net_admin);
        let all = security(serde_json::json!({ "privileged": true }));
        assert_eq!(capabilities(Some(&all)), u64::MAX);
    }
}
