//! A client of a guest's console.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use udn_agent::protocol::{Body, Facts, Hello, Message, Op, Request};

/// Nothing waited for here takes longer, on busy cores and without hardware virtualization.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Pace of greeting a guest that may not be listening yet.
const GREETING: Duration = Duration::from_millis(100);

/// A connection to a console.
pub(crate) struct Console {
    stream: UnixStream,
    lines: Receiver<String>,
    next_id: u64,
    pub(crate) last_seq: u64,
}

impl Console {
    pub(crate) fn connect(path: &Path) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "QEMU's console: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in reader.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { stream, lines, next_id: 0, last_seq: 0 }
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("write to the console");
    }

    pub(crate) fn send(&mut self, request: &Request) {
        self.write(&(serde_json::to_string(request).expect("JSON") + "\n"));
    }

    /// The next message within a time; other lines are skipped.
    fn message(&mut self, patience: Duration) -> Option<Message> {
        let deadline = Instant::now() + patience;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            match serde_json::from_str(&line) {
                Ok(message) => return Some(message),
                Err(_) if line.trim().is_empty() => {}
                Err(_) => eprintln!("console: {}", line.trim_end()),
            }
        }
    }

    /// Greets until answered: the guest may be booting.
    pub(crate) fn greet(&mut self) -> Hello {
        let deadline = Instant::now() + PATIENCE;
        let id = 1_000_000 + u64::from(std::process::id());
        while Instant::now() < deadline {
            self.write("\n");
            self.send(&Request { id, op: Op::Greet });
            let until = Instant::now() + GREETING;
            while let Some(message) = self.message(until.saturating_duration_since(Instant::now())) {
                if let (true, Body::Hello(hello)) = (message.id == id, message.body) {
                    // Those to earlier greetings, which were answered too.
                    while self.message(GREETING).is_some() {}
                    return hello;
                }
            }
        }
        panic!("the guest does not say hello");
    }

    /// Greets and attaches as this session.
    pub(crate) fn attach(&mut self, session: u64, after: u64) -> Hello {
        let hello = self.greet();
        self.last_seq = after;
        self.send(&Request { id: 0, op: Op::Attach { session, after } });
        hello
    }

    /// Asks all at once; answers in the order of the questions.
    pub(crate) fn ask_all(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Body> {
        let ids: Vec<u64> = ops.into_iter().map(|op| self.ask_later(op)).collect();
        self.answers(&ids)
    }

    /// Asks without waiting; gives the request's id.
    pub(crate) fn ask_later(&mut self, op: Op) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.send(&Request { id, op });
        id
    }

    pub(crate) fn answers(&mut self, ids: &[u64]) -> Vec<Body> {
        let mut answers = BTreeMap::new();
        while answers.len() < ids.len() {
            let message = self.message(PATIENCE).expect("an answer in time");
            if message.seq > 0 {
                assert_eq!(message.seq, self.last_seq + 1, "no answer is lost");
                self.last_seq = message.seq;
            }
            if ids.contains(&message.id) {
                answers.insert(message.id, message.body);
            }
        }
        let up_to = self.last_seq;
        self.send(&Request { id: 0, op: Op::Ack { up_to } });
        answers.into_values().collect()
    }

    pub(crate) fn ask(&mut self, op: Op) -> Body {
        self.ask_all([op]).remove(0)
    }

    pub(crate) fn facts(&mut self) -> Facts {
        match self.ask(Op::Facts) {
            Body::Facts(facts) => facts,
            other => panic!("no facts: {other:?}"),
        }
    }

    /// Asks for the facts until they are as wanted.
    pub(crate) fn await_facts(&mut self, what: &str, is: impl Fn(&Facts) -> bool) -> Facts {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let facts = self.facts();
            if is(&facts) {
                return facts;
            }
            assert!(Instant::now() < deadline, "not {what} in time: {facts:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
