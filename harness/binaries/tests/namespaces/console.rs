//! The agent on a terminal: clients that come and go unseen, noise, and nobody who reads.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::unistd::ttyname;
use tempfile::TempDir;
use udn_agent::protocol::{Body, Facts, Hello, Message};

use crate::support::agent::install;

const PATIENCE: Duration = Duration::from_secs(10);

/// An agent on a terminal, and the terminal's other end.
struct Console {
    agent: Child,
    input: File,
    lines: Receiver<String>,
    /// Kept open: else the terminal hangs up.
    _terminal: OwnedFd,
    _folder: TempDir,
}

impl Console {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("agent");
        install(udn_binaries::AGENT, &program);
        let pair = openpty(None, None).expect("a terminal");
        let path = ttyname(&pair.slave).expect("its name");
        let mut command = Command::new(&program);
        command.arg("console").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
        let agent = command.spawn().expect("start the agent");
        let output = File::from(pair.master.try_clone().expect("a second handle"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { agent, input: File::from(pair.master), lines, _terminal: pair.slave, _folder: folder }
    }

    fn write(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("write");
    }

    /// The next message; what is none is skipped, such as the terminal's echo before it is raw.
    fn message(&self, patience: Duration) -> Option<Message> {
        let deadline = Instant::now() + patience;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            if let Ok(message) = serde_json::from_str(&line) {
                return Some(message);
            }
        }
    }

    fn greet(&mut self, id: u64) -> Hello {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.write(&format!("\n{{\"id\":{id},\"op\":\"greet\"}}\n"));
            while let Some(message) = self.message(Duration::from_millis(200)) {
                if let (true, Body::Hello(hello)) = (message.id == id, message.body) {
                    return hello;
                }
            }
        }
        panic!("no hello");
    }

    /// The next numbered message.
    fn answer(&self) -> (u64, u64, Body) {
        loop {
            let message = self.message(PATIENCE).expect("an answer");
            if message.seq > 0 {
                return (message.seq, message.id, message.body);
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

#[test]
fn only_who_greets_is_answered_and_halves_of_lines_are_forgotten() {
    let mut console = Console::start();
    console.write("{\"id\":5,\"op\":\"ping\"}\n");
    assert_eq!(console.message(Duration::from_millis(500)), None, "nobody greeted");
    let hello = console.greet(1);
    assert_eq!((hello.session, hello.last_seq), (0, 0));
    // Noise, what is no request, and half a line of a client that is gone.
    console.write("[    1.2] kernel: hello\nlogin: \n{\"id\":0,\"op\":{\"attach\":{\"session\":7,\"after\":0}}}\n");
    console.write("{\"id\":6,\"op\":\"pi");
    let again = console.greet(2);
    assert_eq!((again.boot, again.session), (hello.boot, 7));
    console.write("{\"id\":0,\"op\":{\"attach\":{\"session\":7,\"after\":0}}}\n{\"id\":8,\"op\":\"ping\"}\n");
    assert_eq!(console.answer(), (1, 8, Body::Done));
    // What cannot be understood and has an id is answered under it, as on any stream.
    console.write("{\"id\":9,\"op\":\"fly\"}\n");
    assert!(matches!(console.answer(), (2, 9, Body::Failed(_))));
}

#[test]
fn what_a_client_missed_is_replayed_to_the_next() {
    let mut console = Console::start();
    console.greet(1);
    console.write("{\"id\":0,\"op\":{\"attach\":{\"session\":7,\"after\":0}}}\n");
    for id in 10..15 {
        console.write(&format!("{{\"id\":{id},\"op\":\"ping\"}}\n"));
    }
    while console.answer().0 < 5 {}
    let hello = console.greet(2);
    assert_eq!(hello.last_seq, 5);
    assert_eq!(console.message(Duration::from_millis(300)), None, "nothing before it says where to start");
    console.write("{\"id\":0,\"op\":{\"attach\":{\"session\":7,\"after\":3}}}\n");
    assert_eq!([console.answer().1, console.answer().1], [13, 14]);
}

#[test]
fn a_console_that_nobody_reads_does_not_stop_the_agent() {
    let mut console = Console::start();
    console.greet(1);
    console.write("{\"id\":0,\"op\":{\"attach\":{\"session\":7,\"after\":0}}}\n");
    // The reading thread goes on, so let far more come than a terminal holds while nobody takes it from there: each answer
    // is some kilobytes, and the terminal takes four at once.
    for id in 10..200 {
        console.write(&format!("{{\"id\":{id},\"op\":\"facts\"}}\n"));
    }
    let mut seen = 0;
    while seen < 190 {
        let (seq, _, body) = console.answer();
        seen += 1;
        assert_eq!(seq, seen, "none is lost");
        assert!(matches!(body, Body::Facts(Facts { guest: None, .. })), "{body:?}");
    }
    console.write("{\"id\":500,\"op\":\"shutdown\"}\n");
    assert_eq!(console.answer().2, Body::Done);
    assert!(console.agent.wait().expect("wait").success());
}
