//! Keeps a stream to one agent and carries requests and answers over it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};
use udn_agent::protocol::{Body, Hello, Message, Op, Request};

use super::codec::{Lines, write_lines};
use super::dialogue::{Dialogue, Heard, Id};
use super::link::{HELLO_TIMEOUT, Link, Streams};
use super::{AgentError, LinkError};

/// How long what was asked waits for a lost stream to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// First pause between attempts to open a stream; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is said to a console: an end to whatever half a line is there, and that somebody is here.
const GREETING: &[u8] = b"\n{\"id\":0,\"op\":\"greet\"}\n";
/// How often that is said until there is an answer.
const GREET_EVERY: Duration = Duration::from_millis(500);
/// When nothing was heard on a console for so long though something is unanswered, something may have been lost.
const SILENCE: Duration = Duration::from_secs(3);

/// A request on its way to the driver.
#[derive(Debug)]
pub struct Command {
    pub(super) op: Op,
    pub(super) answer: oneshot::Sender<Result<Body, AgentError>>,
    /// Told the number of the request, by which later ones may speak of it.
    pub(super) number: Option<oneshot::Sender<Id>>,
}

/// What is said.
enum Say {
    Requests(Vec<Request>),
    /// On a console: that somebody is here.
    Greeting,
}

/// An agent that said hello.
#[derive(Clone, Debug)]
pub struct Met {
    pub(super) hello: Hello,
    /// How much the harness' clock is ahead of its, microseconds; what the hello took included.
    pub(super) ahead_us: i64,
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// A time that an agent told.
pub(crate) fn clock(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// Greets on a console until the agent there says hello: while its guest still starts nobody hears it.
async fn greeted<R, W>(lines: &mut Lines<R>, writer: &mut W) -> std::io::Result<Option<Message>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut again = tokio::time::interval(GREET_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = again.tick() => {
                writer.write_all(GREETING).await?;
                writer.flush().await?;
            }
            message = lines.next::<Message>() => match message? {
                // What was meant for an earlier client is said again once it is asked for.
                Some(message) if !matches!(message.body, Body::Hello(_)) => {}
                other => return Ok(other),
            },
        }
    }
}

type Pending = HashMap<Id, oneshot::Sender<Result<Body, AgentError>>>;

struct Driver {
    dialogue: Dialogue,
    pending: Pending,
    commands: mpsc::UnboundedReceiver<Command>,
    hello: watch::Sender<Option<Met>>,
    last: watch::Sender<Option<Met>>,
    /// Since when there is no stream.
    lost: Option<Instant>,
}

/// Why a stream ended.
enum End {
    /// The last handle is gone.
    Dropped,
    /// The stream is lost.
    Lost(String),
    /// There is no use in going on.
    Useless(AgentError),
}

pub(super) async fn drive(
    link: Box<dyn Link>,
    session: u64,
    commands: mpsc::UnboundedReceiver<Command>,
    (hello, last): (watch::Sender<Option<Met>>, watch::Sender<Option<Met>>),
) {
    let mut driver = Driver {
        dialogue: Dialogue::new(session),
        pending: Pending::new(),
        commands,
        hello,
        last,
        lost: Some(Instant::now()),
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = tokio::select! {
            opened = link.open() => opened,
            () = driver.wait_without_stream() => return,
        };
        let error = match opened {
            Ok(streams) => match driver.talk(streams, link.first_hello()).await {
                End::Dropped => return,
                End::Useless(error) => return driver.give_up(&error).await,
                End::Lost(why) => {
                    tracing::debug!(%why, "control stream lost");
                    if driver.lost.is_none() {
                        pause = FIRST_PAUSE;
                    }
                    AgentError::StreamLost(why)
                }
            },
            Err(LinkError::Gone(why)) => return driver.give_up(&AgentError::Exec(why)).await,
            Err(LinkError::Failed(why)) => AgentError::Exec(why),
        };
        driver.dialogue.cut();
        driver.hello.send_replace(None);
        let since = *driver.lost.get_or_insert_with(Instant::now);
        if since.elapsed() >= driver.patience(&*link) {
            driver.fail_all(&error);
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = driver.wait_without_stream() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Driver {
    /// Takes commands while there is no stream, until the last handle is gone.
    async fn wait_without_stream(&mut self) {
        while let Some(command) = self.commands.recv().await {
            // Without a stream there is nothing to say now.
            drop(self.ask(command));
        }
    }

    fn ask(&mut self, Command { op, answer, number }: Command) -> Vec<Request> {
        let (id, say) = self.dialogue.ask(op);
        if let Some(number) = number {
            // Who does not wait for it does without.
            let _ = number.send(id);
        }
        self.pending.insert(id, answer);
        say
    }

    /// Whether the agent ever said hello.
    fn has_met(&self) -> bool {
        self.last.borrow().is_some()
    }

    /// How long what was asked waits for a stream.
    fn patience(&self, link: &dyn Link) -> Duration {
        if self.has_met() { PATIENCE } else { PATIENCE.max(link.first_hello()) }
    }

    /// Talks until the stream ends. `first_hello`: how long the agent may take for its very first.
    async fn talk(&mut self, streams: Streams, first_hello: Duration) -> End {
        let Streams { reader, mut writer, guard: _guard, complaint, console } = streams;
        let mut lines = if console { Lines::new(reader).skipping() } else { Lines::new(reader) };
        self.dialogue.lossy(console);
        let said =
            async { if console { greeted(&mut lines, &mut writer).await } else { lines.next::<Message>().await } };
        let hello_timeout = if self.has_met() { HELLO_TIMEOUT } else { first_hello };
        let first = match timeout(hello_timeout, said).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return End::Lost(complaint.told("ended before the agent said hello").await),
            Ok(Err(error)) => return End::Lost(complaint.told(&error.to_string()).await),
            Err(_) => return End::Lost(complaint.told("the agent does not say hello").await),
        };
        self.met(&first);
        let mut heard = match self.dialogue.hear(first) {
            Ok(heard) => heard,
            Err(error) => return End::Useless(error),
        };
        self.lost = None;
        // Reading and writing must not wait for each other: both directions can be full at once.
        let (say, mut saying) = mpsc::unbounded_channel::<Say>();
        let write = async move {
            while let Some(first) = saying.recv().await {
                let mut requests = Vec::new();
                let mut next = Some(first);
                while let Some(say) = next {
                    match say {
                        Say::Requests(more) => requests.extend(more),
                        Say::Greeting => writer.write_all(GREETING).await?,
                    }
                    next = saying.try_recv().ok();
                }
                write_lines(&mut writer, &requests).await?;
            }
            std::io::Result::Ok(())
        };
        let mut write = std::pin::pin!(write);
        let mut silent = tokio::time::interval(SILENCE);
        silent.set_missed_tick_behavior(MissedTickBehavior::Delay);
        silent.reset();
        loop {
            self.deliver(&mut heard);
            // The receiver lives as long as this loop.
            if heard.lost {
                let _ = say.send(Say::Greeting);
            }
            if !heard.say.is_empty() {
                let _ = say.send(Say::Requests(std::mem::take(&mut heard.say)));
            }
            heard.lost = false;
            tokio::select! {
                written = &mut write => {
                    return End::Lost(written.err().map_or_else(|| "closed".into(), |error| error.to_string()));
                }
                message = lines.next::<Message>() => match message {
                    Ok(Some(message)) => {
                        silent.reset();
                        self.met(&message);
                        match self.dialogue.hear(message) {
                            Ok(next) => heard = next,
                            Err(error) => return End::Useless(error),
                        }
                    }
                    Ok(None) => return End::Lost(complaint.told("ended").await),
                    Err(error) => return End::Lost(error.to_string()),
                },
                command = self.commands.recv() => match command {
                    Some(command) => heard = Heard { say: self.ask(command), ..Heard::default() },
                    None => return End::Dropped,
                },
                _ = silent.tick(), if console => heard.lost = self.dialogue.awaits(),
            }
        }
    }

    /// Takes note of who it is and what its clock says.
    fn met(&self, message: &Message) {
        if let Body::Hello(hello) = &message.body {
            let met = Met { hello: hello.clone(), ahead_us: now_us() - clock(hello.now_us) };
            self.last.send_replace(Some(met.clone()));
            self.hello.send_replace(Some(met));
        }
    }

    fn deliver(&mut self, heard: &mut Heard) {
        if let Some((id, body)) = heard.answer.take()
            && let Some(answer) = self.pending.remove(&id)
        {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(Ok(body));
        }
    }

    fn fail_all(&mut self, error: &AgentError) {
        // What was asked while a hello was waited for has not been looked at yet.
        while let Ok(command) = self.commands.try_recv() {
            drop(self.ask(command));
        }
        for (id, answer) in self.pending.drain() {
            self.dialogue.forget(id);
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Fails everything, now and later, until the last handle is gone.
    async fn give_up(mut self, error: &AgentError) {
        self.fail_all(error);
        while let Some(command) = self.commands.recv().await {
            let _ = command.answer.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
