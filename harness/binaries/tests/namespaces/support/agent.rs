//! The agent as a process, and a client that waits for its answers.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use udn_agent::protocol::{
    Arrival, Arrivals, Body, Hello, Identify, Listen, Message, Op, Probe, ProbeResult, Request, Transport,
};
use udn_lab_sys::netns::Netns;

/// No answer may take longer than a probe's timeout plus this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The user that has no rights.
const NOBODY: u32 = 65534;

/// An agent in a namespace, and the stream attached to it.
pub(crate) struct Agent {
    directory: TempDir,
    netns: Netns,
    user: u32,
    pub(crate) hello: Hello,
    pub(crate) stream: Option<Stream>,
    session: u64,
    next_id: u64,
    pub(crate) last_seq: u64,
}

/// An `agent attach` process.
pub(crate) struct Stream {
    pub(crate) child: Child,
    pub(crate) input: ChildStdin,
    messages: Receiver<Message>,
}

impl Agent {
    /// Starts an agent with all rights in a namespace.
    pub(crate) fn start(netns: &Netns) -> Self {
        Self::start_as(netns, 0)
    }

    /// Starts an agent without any right.
    pub(crate) fn start_powerless(netns: &Netns) -> Self {
        Self::start_as(netns, NOBODY)
    }

    fn start_as(netns: &Netns, user: u32) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("permissions");
        let program = directory.path().join("agent");
        install(udn_binaries::AGENT, &program);
        let (stream, hello) = open(&program, netns, user);
        let mut agent = Self {
            directory,
            netns: netns.clone(),
            user,
            hello,
            stream: Some(stream),
            session: 1,
            next_id: 0,
            last_seq: 0,
        };
        agent.introduce();
        agent
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_of(&self.program())
    }

    /// Attaches (again), as the same session unless `session` changed.
    pub(crate) fn attach(&mut self) {
        let (stream, hello) = open(&self.program(), &self.netns, self.user);
        assert_eq!(hello.boot, self.hello.boot, "it is the same agent");
        (self.stream, self.hello) = (Some(stream), hello);
        self.introduce();
    }

    /// Becomes another client.
    pub(crate) fn change_session(&mut self) {
        self.session += 1;
        self.last_seq = 0;
    }

    fn introduce(&mut self) {
        let (session, after) = (self.session, self.last_seq);
        self.write(&[Request { id: 0, op: Op::Attach { session, after } }]);
    }

    /// Cuts the stream in the hardest way.
    pub(crate) fn cut(&mut self) {
        let mut stream = self.stream.take().expect("attached");
        stream.child.kill().expect("kill");
        stream.child.wait().expect("wait");
    }

    pub(crate) fn write(&mut self, requests: &[Request]) {
        let mut lines = String::new();
        for request in requests {
            lines.push_str(&serde_json::to_string(request).expect("JSON"));
            lines.push('\n');
        }
        let stream = self.stream.as_mut().expect("attached");
        stream.input.write_all(lines.as_bytes()).expect("write");
    }

    /// Numbers requests.
    pub(crate) fn requests(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Request> {
        ops.into_iter()
            .map(|op| {
                self.next_id += 1;
                Request { id: self.next_id, op }
            })
            .collect()
    }

    /// The next message, whatever it is.
    pub(crate) fn message(&mut self) -> Message {
        let stream = self.stream.as_mut().expect("attached");
        let message = stream.messages.recv_timeout(PATIENCE).expect("an answer in time");
        if message.seq > 0 {
            assert_eq!(message.seq, self.last_seq + 1, "answers come without gaps and none twice");
            self.last_seq = message.seq;
        }
        message
    }

    /// Asks all at once; answers in the order of the questions.
    pub(crate) fn ask_all(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Body> {
        let requests = self.requests(ops);
        self.write(&requests);
        let mut answers = BTreeMap::new();
        while answers.len() < requests.len() {
            let message = self.message();
            assert!(answers.insert(message.id, message.body).is_none(), "one answer each");
        }
        let up_to = self.last_seq;
        self.write(&[Request { id: 0, op: Op::Ack { up_to } }]);
        answers.into_values().collect()
    }

    pub(crate) fn ask(&mut self, op: Op) -> Body {
        self.ask_all([op]).remove(0)
    }

    pub(crate) fn listen(&mut self, transport: Transport, port: u16, identity: &str) {
        let identity = identity.to_owned();
        assert_eq!(self.ask(Op::Listen(Listen { transport, port, identity, echo: false })), Body::Done);
    }

    /// Listens for flows: returns every byte.
    pub(crate) fn listen_and_echo(&mut self, port: u16, identity: &str) {
        let (transport, identity) = (Transport::Tcp, identity.to_owned());
        assert_eq!(self.ask(Op::Listen(Listen { transport, port, identity, echo: true })), Body::Done);
    }

    pub(crate) fn probe_all(&mut self, probes: impl IntoIterator<Item = Probe>) -> Vec<ProbeResult> {
        self.ask_all(probes.into_iter().map(Op::Probe))
            .into_iter()
            .map(|body| match body {
                Body::Probe(result) => result,
                other => panic!("not a probe's result: {other:?}"),
            })
            .collect()
    }

    pub(crate) fn probe(&mut self, probe: Probe) -> ProbeResult {
        self.probe_all([probe]).remove(0)
    }

    pub(crate) fn arrivals(&mut self) -> Arrivals {
        match self.ask(Op::Arrivals { after: 0 }) {
            Body::Arrivals(arrivals) => arrivals,
            other => panic!("no arrivals: {other:?}"),
        }
    }

    /// Arrivals at one port (0: echo requests) over one transport.
    pub(crate) fn arrivals_at(&mut self, transport: Transport, to: SocketAddr) -> Vec<Arrival> {
        let all = self.arrivals().list;
        all.into_iter().filter(|arrival| arrival.transport == transport && arrival.destination == to).collect()
    }

    /// A number in `/proc/PID/status`, such as `VmRSS` in KiB.
    pub(crate) fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.hello.pid)).expect("the agent lives");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.child.kill();
            let _ = stream.child.wait();
        }
        if let Ok(pid) = i32::try_from(self.hello.pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Puts a program where it can be run. Another process writes it, as in a pod: while this one had it open for writing, a
/// process that another test is starting just then would inherit that, and the program could not be run.
pub(crate) fn install(program: &[u8], path: &std::path::Path) {
    let mut tee = Command::new("tee");
    let mut tee = tee.arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("tee");
    tee.stdin.take().expect("piped").write_all(program).expect("write");
    assert!(tee.wait().expect("wait").success(), "write {}", path.display());
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("permissions");
}

/// A process that does not outlive its test.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn socket_of(program: &std::path::Path) -> PathBuf {
    program.with_file_name("agent.sock")
}

/// A command that runs the program in the namespace as this user.
pub(crate) fn command(program: &std::path::Path, user: u32, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    if user != 0 {
        command.uid(user).gid(user);
    }
    command
}

/// Attaches, up to the agent's first line.
fn open(program: &std::path::Path, netns: &Netns, user: u32) -> (Stream, Hello) {
    let socket = socket_of(program);
    let mut attach = command(program, user, &["attach", "--socket", socket.to_str().expect("UTF-8")]);
    let mut child = netns.run(|| attach.spawn()).expect("enter the namespace").expect("start the agent");
    let input = child.stdin.take().expect("piped");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        // A cut stream ends in the middle of a line, which is to be thrown away.
        for line in output.lines().map_while(Result::ok) {
            let Ok(message) = serde_json::from_str(&line) else { break };
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    let first: Message = messages.recv_timeout(PATIENCE).expect("the agent says hello");
    let Body::Hello(hello) = first.body else { panic!("not hello: {first:?}") };
    (Stream { child, input, messages }, hello)
}

/// A probe with the usual settings.
pub(crate) fn probe(transport: Transport, to: SocketAddr) -> Probe {
    static NONCE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    Probe {
        transport,
        to,
        from: None,
        source_port: None,
        timeout_ms: 1000,
        identify: if transport == Transport::Icmp { Identify::None } else { Identify::Banner },
        nonce: NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
    }
}
