//! Who has said what, and what has to be said again. Pure: no stream, no clock.

use std::collections::{BTreeMap, VecDeque};

use udn_agent::protocol::{Body, Hello, Listen, Message, Op, PROTOCOL, Request, Transport};

use super::AgentError;

/// Requests that are unanswered at once at most: half of what the agent holds, since answers that are not yet
/// acknowledged count there, too.
const IN_FLIGHT: usize = 2000;
/// Answers after which they are acknowledged.
const ACKNOWLEDGE_EVERY: u64 = 64;

/// A request's number.
pub type Id = u64;

/// The client's side of the dialogue with one agent.
#[derive(Debug)]
pub struct Dialogue {
    session: u64,
    next_id: Id,
    /// Last `seq` received in full.
    last_seq: u64,
    acknowledged: u64,
    /// The agent's life that all this belongs to.
    boot: Option<u64>,
    /// Whether the agent has said hello on the present stream.
    attached: bool,
    /// Whether lines may be lost on the present stream.
    lossy: bool,
    /// Said and not answered, in the order of ids.
    said: BTreeMap<Id, Op>,
    /// Not said yet.
    waiting: VecDeque<(Id, Op)>,
    /// What has been listened on, to be opened again in another life.
    listeners: BTreeMap<(Transport, u16), Listen>,
}

/// What came of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// An answer.
    pub answer: Option<(Id, Body)>,
    /// What to say now.
    pub say: Vec<Request>,
    /// Whether it was a hello from another life: what the agent remembered is gone.
    pub reborn: bool,
    /// Whether lines were lost: the agent has to be greeted again.
    pub lost: bool,
}

impl Dialogue {
    /// Nothing said yet.
    #[must_use]
    pub const fn new(session: u64) -> Self {
        Self {
            session,
            next_id: 1,
            last_seq: 0,
            acknowledged: 0,
            boot: None,
            attached: false,
            lossy: false,
            said: BTreeMap::new(),
            waiting: VecDeque::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// Takes a request. Returns its id and what to say now: nothing while there is no stream, or too much is unanswered.
    pub fn ask(&mut self, op: Op) -> (Id, Vec<Request>) {
        let id = self.next_id;
        self.next_id += 1;
        match &op {
            Op::Listen(listen) => drop(self.listeners.insert((listen.transport, listen.port), listen.clone())),
            Op::Unlisten { transport, port } => drop(self.listeners.remove(&(*transport, *port))),
            _ => {}
        }
        self.waiting.push_back((id, op));
        (id, self.flush())
    }

    /// Nobody waits for this any more: it is not said again.
    pub fn forget(&mut self, id: Id) {
        self.said.remove(&id);
        self.waiting.retain(|(waiting, _)| *waiting != id);
    }

    /// Lines may be lost on the next stream, or not.
    pub const fn lossy(&mut self, lossy: bool) {
        self.lossy = lossy;
    }

    /// Whether anything is unanswered.
    #[must_use]
    pub fn awaits(&self) -> bool {
        !self.said.is_empty()
    }

    /// The stream is gone. What is unanswered stays so.
    pub const fn cut(&mut self) {
        self.attached = false;
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The agent speaks another protocol.
    pub fn hear(&mut self, message: Message) -> Result<Heard, AgentError> {
        let Message { seq, id, body } = message;
        match body {
            Body::Hello(hello) => self.greeted(&hello),
            Body::Busy => {
                // Its answers were not acknowledged in time: do so now, and ask again.
                if let Some(op) = self.said.remove(&id) {
                    self.waiting.push_front((id, op));
                }
                Ok(Heard { say: vec![self.acknowledge()], ..Heard::default() })
            }
            body => Ok(self.answered(seq, id, body)),
        }
    }

    fn greeted(&mut self, hello: &Hello) -> Result<Heard, AgentError> {
        if hello.protocol != PROTOCOL {
            return Err(AgentError::Protocol { found: hello.protocol, expected: PROTOCOL });
        }
        let reborn = self.boot.is_some_and(|boot| boot != hello.boot);
        if reborn || self.boot.is_none() {
            // Answers to others are numbered with ours.
            let known = if reborn || hello.session == self.session { 0 } else { hello.last_seq };
            (self.last_seq, self.acknowledged) = (known, known);
        }
        self.boot = Some(hello.boot);
        self.attached = true;
        let mut say = vec![Request { id: 0, op: Op::Attach { session: self.session, after: self.last_seq } }];
        if reborn {
            // Listeners first: what is asked again may depend on them. Those still unanswered are said anyway.
            let unanswered: Vec<&Op> = self.said.values().collect();
            let missing: Vec<Listen> = self
                .listeners
                .values()
                .filter(|listen| !unanswered.contains(&&Op::Listen((*listen).clone())))
                .cloned()
                .collect();
            for listen in missing {
                let id = self.next_id;
                self.next_id += 1;
                self.said.insert(id, Op::Listen(listen));
            }
        }
        say.extend(self.said.iter().map(|(id, op)| Request { id: *id, op: op.clone() }));
        say.extend(self.flush());
        Ok(Heard { say, reborn, ..Heard::default() })
    }

    fn answered(&mut self, seq: u64, id: Id, body: Body) -> Heard {
        // Replayed although it was received: the stream was cut before the acknowledgement arrived.
        if seq <= self.last_seq {
            return Heard::default();
        }
        if self.lossy && seq > self.last_seq + 1 {
            return Heard { lost: true, ..Heard::default() };
        }
        self.last_seq = seq;
        let known = self.said.remove(&id).is_some();
        let mut say = Vec::new();
        if self.last_seq - self.acknowledged >= ACKNOWLEDGE_EVERY || (self.said.is_empty() && self.waiting.is_empty()) {
            say.push(self.acknowledge());
        }
        say.extend(self.flush());
        Heard { answer: known.then_some((id, body)), say, ..Heard::default() }
    }

    const fn acknowledge(&mut self) -> Request {
        self.acknowledged = self.last_seq;
        Request { id: 0, op: Op::Ack { up_to: self.last_seq } }
    }

    fn flush(&mut self) -> Vec<Request> {
        let mut say = Vec::new();
        while self.attached && self.said.len() < IN_FLIGHT {
            let Some((id, op)) = self.waiting.pop_front() else { break };
            self.said.insert(id, op.clone());
            say.push(Request { id, op });
        }
        say
    }
}

#[cfg(test)]
mod tests {
    use udn_agent::protocol::{Evidence, IcmpMeans};

    use super::*;

    fn hello(boot: u64) -> Message {
        let hello = Hello {
            protocol: PROTOCOL,
            version: "0".into(),
            pid: 1,
            boot,
            session: 0,
            last_seq: 0,
            evidence: Evidence::Capture,
            icmp: IcmpMeans::Raw,
            max_probes: 10,
            now_us: 0,
        };
        Message { seq: 0, id: 0, body: Body::Hello(hello) }
    }

    fn done(seq: u64, id: Id) -> Message {
        Message { seq, id, body: Body::Done }
    }

    fn listen(port: u16) -> Op {
        Op::Listen(Listen { transport: Transport::Tcp, port, identity: "ns/pod".into(), echo: false })
    }

    fn attach(after: u64) -> Request {
        Request { id: 0, op: Op::Attach { session: 77, after } }
    }

    fn ids(requests: &[Request]) -> Vec<Id> {
        requests.iter().map(|request| request.id).collect()
    }

    #[test]
    fn what_is_asked_early_is_said_after_the_attachment() {
        let mut dialogue = Dialogue::new(77);
        let (id, say) = dialogue.ask(Op::Ping);
        assert!(say.is_empty());
        let heard = dialogue.hear(hello(1)).unwrap();
        assert_eq!(heard.say, [attach(0), Request { id, op: Op::Ping }]);
        assert_eq!(dialogue.hear(done(1, id)).unwrap().answer, Some((id, Body::Done)));
    }

    #[test]
    fn after_a_cut_the_unanswered_is_said_again_and_replays_are_heard_once() {
        let mut dialogue = Dialogue::new(77);
        dialogue.hear(hello(1)).unwrap();
        let (a, _) = dialogue.ask(Op::Ping);
        let (b, _) = dialogue.ask(Op::Facts);
        let (c, _) = dialogue.ask(Op::Ping);
        assert!(dialogue.hear(done(1, a)).unwrap().answer.is_some());
        dialogue.cut();
        let (d, say) = dialogue.ask(Op::Ping);
        assert!(say.is_empty(), "there is no stream");
        let heard = dialogue.hear(hello(1)).unwrap();
        assert!(!heard.reborn);
        assert_eq!(heard.say[0], attach(1));
        assert_eq!(ids(&heard.say[1..]), [b, c, d]);
        assert_eq!(dialogue.hear(done(1, a)).unwrap(), Heard::default(), "replayed");
        assert_eq!(dialogue.hear(done(2, c)).unwrap().answer, Some((c, Body::Done)));
        assert_eq!(dialogue.hear(done(3, b)).unwrap().answer, Some((b, Body::Done)));
        assert_eq!(dialogue.hear(done(4, d)).unwrap().answer, Some((d, Body::Done)));
        assert_eq!(dialogue.hear(done(2, c)).unwrap(), Heard::default(), "replayed late");
        dialogue.cut();
        assert_eq!(dialogue.hear(hello(1)).unwrap().say, [attach(4)], "a replay sets nothing back");
    }

    #[test]
    fn another_life_gets_its_listeners_and_everything_unanswered() {
        let mut dialogue = Dialogue::new(77);
        dialogue.hear(hello(1)).unwrap();
        let (first, _) = dialogue.ask(listen(8080));
        dialogue.hear(done(1, first)).unwrap();
        let (second, _) = dialogue.ask(listen(9090));
        let (ping, _) = dialogue.ask(Op::Ping);
        dialogue.cut();
        let heard = dialogue.hear(hello(2)).unwrap();
        assert!(heard.reborn);
        assert_eq!(heard.say[0], attach(0));
        let again: Vec<&Op> = heard.say[1..].iter().map(|request| &request.op).collect();
        assert_eq!(again, [&listen(9090), &Op::Ping, &listen(8080)]);
        // Answers count from 1 again.
        assert!(dialogue.hear(done(1, second)).unwrap().answer.is_some());
        assert!(dialogue.hear(done(2, ping)).unwrap().answer.is_some());
    }

    #[test]
    fn where_lines_are_lost_the_agent_is_greeted_and_replays_them() {
        let mut dialogue = Dialogue::new(77);
        dialogue.lossy(true);
        dialogue.hear(hello(1)).unwrap();
        let (a, _) = dialogue.ask(Op::Ping);
        let (b, _) = dialogue.ask(Op::Ping);
        assert!(dialogue.hear(done(2, b)).unwrap().lost);
        assert_eq!(dialogue.hear(hello(1)).unwrap().say[0], attach(0));
        assert!(dialogue.hear(done(1, a)).unwrap().answer.is_some());
        assert!(dialogue.hear(done(2, b)).unwrap().answer.is_some());
    }

    #[test]
    fn answers_to_an_earlier_client_are_not_missed() {
        let mut dialogue = Dialogue::new(77);
        dialogue.lossy(true);
        let Message { body: Body::Hello(greeting), .. } = hello(1) else { panic!() };
        let greeting = Hello { session: 5, last_seq: 40, ..greeting };
        dialogue.hear(Message { seq: 0, id: 0, body: Body::Hello(greeting) }).unwrap();
        let (a, _) = dialogue.ask(Op::Ping);
        assert!(dialogue.hear(done(41, a)).unwrap().answer.is_some());
    }

    #[test]
    fn answers_are_acknowledged_in_bunches_and_at_the_end() {
        let mut dialogue = Dialogue::new(77);
        dialogue.hear(hello(1)).unwrap();
        let asked: Vec<Id> = (0..100).map(|_| dialogue.ask(Op::Ping).0).collect();
        let mut acknowledged = Vec::new();
        for (seq, id) in (1..).zip(asked) {
            for request in dialogue.hear(done(seq, id)).unwrap().say {
                if let Op::Ack { up_to } = request.op {
                    acknowledged.push(up_to);
                }
            }
        }
        assert_eq!(acknowledged, [64, 100]);
    }

    #[test]
    fn no_more_is_asked_than_the_agent_holds() {
        let mut dialogue = Dialogue::new(77);
        dialogue.hear(hello(1)).unwrap();
        let said: usize = (0..IN_FLIGHT + 5).map(|_| dialogue.ask(Op::Ping).1.len()).sum();
        assert_eq!(said, IN_FLIGHT);
        let heard = dialogue.hear(done(1, 1)).unwrap();
        assert_eq!(ids(&heard.say), [u64::try_from(IN_FLIGHT).unwrap() + 1]);
    }

    #[test]
    fn a_busy_agent_is_asked_again() {
        let mut dialogue = Dialogue::new(77);
        dialogue.hear(hello(1)).unwrap();
        let (a, _) = dialogue.ask(Op::Ping);
        let (b, _) = dialogue.ask(Op::Facts);
        let heard = dialogue.hear(Message { seq: 0, id: a, body: Body::Busy }).unwrap();
        assert_eq!(heard.answer, None);
        assert!(matches!(heard.say[..], [Request { id: 0, op: Op::Ack { .. } }]));
        let heard = dialogue.hear(done(1, b)).unwrap();
        assert!(ids(&heard.say).contains(&a), "{heard:?}");
    }

    #[test]
    fn what_nobody_waits_for_is_not_said_again() {
        let mut dialogue = Dialogue::new(77);
        dialogue.hear(hello(1)).unwrap();
        let (id, _) = dialogue.ask(Op::Ping);
        dialogue.forget(id);
        dialogue.cut();
        assert_eq!(dialogue.hear(hello(1)).unwrap().say, [attach(0)]);
    }

    #[test]
    fn another_protocol_is_refused() {
        let Message { body: Body::Hello(mut hello), .. } = hello(1) else { panic!() };
        hello.protocol = 9;
        let error = Dialogue::new(77).hear(Message { seq: 0, id: 0, body: Body::Hello(hello) }).unwrap_err();
        assert_eq!(error, AgentError::Protocol { found: 9, expected: PROTOCOL });
    }
}
