//! The driver against an agent that the test plays itself.

use async_trait::async_trait;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::Mutex;
use udn_agent::protocol::{Evidence, Facts, IcmpMeans, Listen, PROTOCOL, Transport};

use super::super::Agent;
use super::super::link::Complaint;
use super::*;

/// How long the machines of these tests may take to start: longer than agents in pods may take to answer.
const BOOT: Duration = Duration::from_secs(120);

/// Hands out what the test prepared.
struct Prepared(Mutex<mpsc::UnboundedReceiver<Result<DuplexStream, LinkError>>>);

#[async_trait]
impl Link for Prepared {
    async fn open(&self) -> Result<Streams, LinkError> {
        let next = self.0.lock().await.recv().await;
        let stream = next.unwrap_or(Err(LinkError::Failed("nothing prepared".into())))?;
        let (reader, writer) = split(stream);
        Ok(Streams {
            reader: Box::new(reader),
            writer: Box::new(writer),
            guard: Box::new(()),
            complaint: Complaint::default(),
            console: false,
        })
    }

    fn first_hello(&self) -> Duration {
        BOOT
    }
}

/// The far end of one stream.
struct Played {
    lines: Lines<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

impl Played {
    async fn say(&mut self, seq: u64, id: u64, body: Body) {
        write_lines(&mut self.writer, &[Message { seq, id, body }]).await.unwrap();
    }

    async fn hear(&mut self) -> Request {
        self.lines.next().await.unwrap().unwrap()
    }

    /// Says hello, expects the attachment.
    async fn greet(&mut self, boot: u64, after: u64) {
        self.say(0, 0, Body::Hello(hello(boot))).await;
        let attach = self.hear().await;
        assert_eq!(attach.op, Op::Attach { session: 5, after });
    }

    /// The next request that is no acknowledgement.
    async fn asked(&mut self) -> Request {
        loop {
            let request = self.hear().await;
            if !matches!(request.op, Op::Ack { .. }) {
                return request;
            }
        }
    }
}

fn hello(boot: u64) -> Hello {
    Hello {
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
    }
}

fn start() -> (Agent, mpsc::UnboundedSender<Result<DuplexStream, LinkError>>) {
    let (prepare, prepared) = mpsc::unbounded_channel();
    (Agent::start(Prepared(Mutex::new(prepared)), 5), prepare)
}

fn stream(prepare: &mpsc::UnboundedSender<Result<DuplexStream, LinkError>>) -> Played {
    let (near, far) = duplex(64 * 1024);
    prepare.send(Ok(near)).unwrap();
    let (reader, writer) = split(far);
    Played { lines: Lines::new(reader), writer }
}

const LONG: Duration = Duration::from_secs(240);

fn call(agent: &Agent, op: Op) -> tokio::task::JoinHandle<Result<Body, AgentError>> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.call(op, LONG).await })
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_any_order() {
    let (agent, prepare) = start();
    let mut played = stream(&prepare);
    let (a, b) = (call(&agent, Op::Ping), call(&agent, Op::Facts));
    played.greet(1, 0).await;
    let (first, second) = (played.asked().await, played.asked().await);
    let facts = if first.op == Op::Facts { first.id } else { second.id };
    let ping = if first.op == Op::Facts { second.id } else { first.id };
    played.say(1, facts, Body::Facts(Facts::default())).await;
    played.say(2, ping, Body::Done).await;
    assert_eq!(a.await.unwrap(), Ok(Body::Done));
    assert_eq!(b.await.unwrap(), Ok(Body::Facts(Facts::default())));
    assert_eq!(agent.hello().unwrap().boot, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_loses_nothing() {
    let (agent, prepare) = start();
    let mut played = stream(&prepare);
    let (a, b) = (call(&agent, Op::Ping), call(&agent, Op::Ping));
    played.greet(1, 0).await;
    let (first, second) = (played.asked().await, played.asked().await);
    played.say(1, first.id, Body::Done).await;
    // Half of the second answer gets through.
    played.writer.write_all(b"{\"seq\":2,\"id\":").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(played);
    let mut played = stream(&prepare);
    played.greet(1, 1).await;
    assert_eq!(played.asked().await.id, second.id);
    played.say(2, second.id, Body::Done).await;
    assert_eq!(a.await.unwrap(), Ok(Body::Done));
    assert_eq!(b.await.unwrap(), Ok(Body::Done));
}

#[tokio::test(start_paused = true)]
async fn a_new_life_opens_its_listeners_again() {
    let (agent, prepare) = start();
    let mut played = stream(&prepare);
    played.greet(1, 0).await;
    let listen = Listen { transport: Transport::Tcp, port: 80, identity: "a".into(), echo: false };
    let opened = call(&agent, Op::Listen(listen.clone()));
    let request = played.asked().await;
    played.say(1, request.id, Body::Done).await;
    opened.await.unwrap().unwrap();
    drop(played);
    let mut played = stream(&prepare);
    played.greet(2, 0).await;
    assert_eq!(played.asked().await.op, Op::Listen(listen));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_is_said_in_time() {
    let (agent, prepare) = start();
    let begun = Instant::now();
    let asked = call(&agent, Op::Ping);
    for _ in 0..100 {
        prepare.send(Err(LinkError::Failed("exec into a: container not found".into()))).unwrap();
    }
    assert_eq!(asked.await.unwrap(), Err(AgentError::Exec("exec into a: container not found".into())));
    assert!(begun.elapsed() >= BOOT && begun.elapsed() < BOOT + PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_says_hello_is_waited_for_and_then_told_so() {
    let (agent, prepare) = start();
    let _silent = stream(&prepare);
    let begun = Instant::now();
    let silent = AgentError::StreamLost("the agent does not say hello".into());
    assert_eq!(agent.ready().await, Err(silent), "not merely late");
    assert!(begun.elapsed() >= BOOT && begun.elapsed() < BOOT + PATIENCE, "{:?}", begun.elapsed());
}

/// A guest that starts for longer than a stream may be lost.
#[tokio::test(start_paused = true)]
async fn a_slow_start_is_waited_for_and_a_loss_after_it_for_less_long() {
    let (agent, prepare) = start();
    let mut played = stream(&prepare);
    let ready = {
        let agent = agent.clone();
        tokio::spawn(async move { agent.ready().await })
    };
    tokio::time::sleep(BOOT - Duration::from_secs(1)).await;
    played.greet(1, 0).await;
    let request = played.asked().await;
    played.say(1, request.id, Body::Done).await;
    assert_eq!(ready.await.unwrap(), Ok(()));
    drop(played);
    let begun = Instant::now();
    let asked = call(&agent, Op::Ping);
    // Nobody says hello on it.
    let _silent = stream(&prepare);
    assert!(matches!(asked.await.unwrap(), Err(AgentError::StreamLost(_))));
    assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < BOOT, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_is_not_waited_for() {
    let (agent, prepare) = start();
    let begun = Instant::now();
    let asked = call(&agent, Op::Ping);
    prepare.send(Err(LinkError::Gone("pod a is gone".into()))).unwrap();
    assert_eq!(asked.await.unwrap(), Err(AgentError::Exec("pod a is gone".into())));
    assert_eq!(agent.call(Op::Ping, LONG).await, Err(AgentError::Exec("pod a is gone".into())));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_late_and_one_that_refuses_says_why() {
    let (agent, prepare) = start();
    let mut played = stream(&prepare);
    let refused = call(&agent, Op::Facts);
    played.greet(1, 0).await;
    let request = played.asked().await;
    let failure = udn_agent::protocol::Failure { attempted: "read routes".into(), errno: 1 };
    played.say(1, request.id, Body::Failed(failure)).await;
    assert_eq!(refused.await.unwrap(), Err(AgentError::Failed("the agent could not read routes (errno 1)".into())));
    let patience = Duration::from_secs(3);
    assert_eq!(agent.call(Op::Ping, patience).await, Err(AgentError::Late(patience)));
}

#[tokio::test(start_paused = true)]
async fn thousands_are_in_flight_at_once() {
    let (agent, prepare) = start();
    let mut played = stream(&prepare);
    let calls: Vec<_> = (0..5000).map(|_| call(&agent, Op::Ping)).collect();
    played.greet(1, 0).await;
    let answering = tokio::spawn(async move {
        for seq in 1..=5000 {
            let request = played.asked().await;
            played.say(seq, request.id, Body::Done).await;
        }
        played
    });
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(Body::Done));
    }
    drop(answering);
}
