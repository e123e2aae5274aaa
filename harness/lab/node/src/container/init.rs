//! The start-up program: enters or makes namespaces, forks, prepares the child and lets it become the container's
//! program. It leaves once that runs.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{execve, sethostname, setsid};
use rustix::process::{PidfdFlags, Signal, WaitOptions, ioctl_tiocsctty, pidfd_open, pidfd_send_signal, waitpid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::job::{Creation, Job, Program, Report};
use super::{channel, fork, privilege, steps};

/// What container runtimes search when the environment has no `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program could not be started; the code is the exit status that a shell would give.
struct Failure {
    message: String,
    code: i32,
}

impl Failure {
    fn new(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {error}"), code: 128 }
    }
}

/// Entry point of the start-up program. Must be called before any thread is started: it forks.
///
/// `_args` (what follows the program's name) is not needed: the job comes on standard input, a socket.
pub fn container_main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    match start(&socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            // Nobody listens any more where this fails.
            let _ = channel::report(&socket, &Report::Failed { message, code }, &[]);
            ExitCode::FAILURE
        }
    }
}

fn start(socket: &OwnedFd) -> Result<(), Failure> {
    let (_, descriptors) = channel::receive(socket).map_err(|error| Failure::new("cannot receive a job", error))?;
    let mut descriptors = descriptors.into_iter();
    let (Some(job), Some(namespace)) = (descriptors.next(), descriptors.next()) else {
        return Err(Failure::new("cannot start a container", "the job has no descriptors"));
    };
    let stdio: Vec<OwnedFd> = descriptors.collect();
    let job: Job = read_job(job).map_err(|error| Failure::new("cannot read the job", error))?;
    enter(&job, &namespace).map_err(|error| Failure::new("cannot enter the container's namespaces", error))?;
    drop(namespace);

    let (mut errors, error_writer) = io::pipe().map_err(|error| Failure::new("cannot make a pipe", error))?;
    let pid = fork::fork_into(|| {
        let failure = become_program(socket, &job, &stdio);
        // The first four bytes are the code. The pipe closes by itself when the program starts.
        let mut writer = error_writer;
        let _ = writer.write_all(&failure.code.to_ne_bytes());
        let _ = writer.write_all(failure.message.as_bytes());
        failure.code
    })
    .map_err(|error| Failure::new("cannot fork", error))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| Failure::new("cannot open a pidfd", error))?;

    let mut failure = Vec::new();
    errors.read_to_end(&mut failure).map_err(|error| Failure::new("cannot read from the container", error))?;
    if let Some((code, message)) = failure.split_first_chunk::<4>() {
        // Left to others it would stay a zombie in the container's pid namespace, which could then never end.
        let _ = waitpid(Some(pid), WaitOptions::empty());
        let message = String::from_utf8_lossy(message).into_owned();
        return Err(Failure { message, code: i32::from_ne_bytes(*code) });
    }
    let started = Report::Started { pid: pid.as_raw_pid() };
    if channel::report(socket, &started, &[pidfd.as_fd()]).is_err() {
        // The node agent is gone: nobody would ever end this container.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    Ok(())
}

fn read_job(descriptor: OwnedFd) -> io::Result<Job> {
    use std::io::Seek;
    let mut file = File::from(descriptor);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn enter(job: &Job, namespace: &OwnedFd) -> io::Result<()> {
    match job {
        Job::Create(creation) => {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
            own.set(CloneFlags::CLONE_NEWPID, !creation.host_pid);
            unshare(own)?;
            // Nothing mounted from here on may spread to the lab.
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        }
        Job::Join(_) => {
            // The mount namespace last: afterwards paths are the container's.
            setns(
                namespace,
                CloneFlags::CLONE_NEWNET
                    | CloneFlags::CLONE_NEWPID
                    | CloneFlags::CLONE_NEWUTS
                    | CloneFlags::CLONE_NEWIPC
                    | CloneFlags::CLONE_NEWNS,
            )?;
        }
    }
    Ok(())
}

/// Runs in the child; returns only on failure.
fn become_program(socket: &OwnedFd, job: &Job, stdio: &[OwnedFd]) -> Failure {
    let result = match job {
        Job::Create(creation) => build(creation).and_then(|()| run(socket, &creation.program, stdio)),
        Job::Join(program) => run(socket, program, stdio),
    };
    match result {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn build(creation: &Creation) -> Result<(), Failure> {
    sethostname(&creation.hostname).map_err(|error| Failure::new("cannot set the host name", error))?;
    steps::build_root(&creation.mount_point, &creation.steps, creation.read_only_root)
        .map_err(|error| Failure::new("cannot build the root file system", error))
}

fn run(socket: &OwnedFd, program: &Program, stdio: &[OwnedFd]) -> Result<std::convert::Infallible, Failure> {
    // Its own session: a terminal's signals stay inside, and it has no terminal of the lab's.
    setsid().map_err(|error| Failure::new("cannot start a session", error))?;
    connect_stdio(socket, program, stdio).map_err(|error| Failure::new("cannot connect standard streams", error))?;
    let _ = std::fs::create_dir_all(&program.directory);
    std::env::set_current_dir(&program.directory).map_err(|error| {
        Failure::new(format!("chdir to cwd (\"{}\") set in config.json failed", program.directory), error)
    })?;
    fork::reset_signals().map_err(|error| Failure::new("cannot reset signals", error))?;
    let path = find(program)?;
    privilege::give_up(program).map_err(|error| Failure::new("cannot drop privileges", error))?;
    let text = |text: &str| {
        CString::new(text)
            .map_err(|_| Failure::new("cannot start the program", "a NUL byte in an argument or variable"))
    };
    let argv = program.argv.iter().map(|argument| text(argument)).collect::<Result<Vec<_>, _>>()?;
    let env =
        program.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>()?;
    execve(&text(&path)?, &argv, &env).map_err(|error| not_started(&path, error))
}

fn connect_stdio(socket: &OwnedFd, program: &Program, stdio: &[OwnedFd]) -> io::Result<()> {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    if program.terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = rustix::fs::open(
            "/dev/pts/ptmx",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        unlockpt(&controller)?;
        let terminal = ioctl_tiocgptpeer(&controller, flags)?;
        ioctl_tiocsctty(&terminal)?;
        channel::report(socket, &Report::Terminal, &[controller.as_fd()])?;
        dup2_stdin(&terminal)?;
        dup2_stdout(&terminal)?;
        dup2_stderr(&terminal)?;
        return Ok(());
    }
    let [stdin, stdout, stderr] = stdio else { return Err(io::Error::other("the job has no standard streams")) };
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    Ok(())
}

fn find(program: &Program) -> Result<String, Failure> {
    let Some(name) = program.argv.first().filter(|name| !name.is_empty()) else {
        return Err(Failure::new("no command specified", "the image has none either"));
    };
    if name.contains('/') {
        return Ok(name.clone());
    }
    let path = program.env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let executable = |candidate: &String| {
        rustix::fs::access(candidate.as_str(), rustix::fs::Access::EXEC_OK).is_ok()
            && std::fs::metadata(candidate).is_ok_and(|found| found.is_file())
    };
    path.split(':')
        .map(|directory| format!("{directory}/{name}"))
        .find(executable)
        .ok_or_else(|| Failure { message: format!("exec: \"{name}\": executable file not found in $PATH"), code: 127 })
}

fn not_started(path: &str, error: nix::Error) -> Failure {
    let (text, code) = match error {
        nix::Error::ENOENT => ("no such file or directory", 127),
        nix::Error::EACCES => ("permission denied", 126),
        nix::Error::ENOEXEC => ("exec format error", 126),
        other => (other.desc(), 126),
    };
    Failure { message: format!("exec: \"{path}\": {text}"), code }
}
