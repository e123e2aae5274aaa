//! Keeps a stream to one agent and carries requests and answers over it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use udn_agent::protocol::{Body, Hello, Message, Op, Request};

use super::codec::{Lines, write_lines};
use super::dialogue::{Dialogue, Heard, Id};
use super::link::{Link, Streams};
use super::{AgentError, LinkError};

/// How long what was asked waits for a lost stream to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the agent may take to say hello on a new stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause between attempts to open a stream; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A request on its way to the driver.
#[derive(Debug)]
pub struct Command {
    pub(super) op: Op,
    pub(super) answer: oneshot::Sender<Result<Body, AgentError>>,
    /// Told the number of the request, by which later ones may speak of it.
    pub(super) number: Option<oneshot::Sender<Id>>,
}

type Pending = HashMap<Id, oneshot::Sender<Result<Body, AgentError>>>;

struct Driver {
    dialogue: Dialogue,
    pending: Pending,
    commands: mpsc::UnboundedReceiver<Command>,
    hello: watch::Sender<Option<Hello>>,
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
    hello: watch::Sender<Option<Hello>>,
) {
    let mut driver = Driver {
        dialogue: Dialogue::new(session),
        pending: Pending::new(),
        commands,
        hello,
        lost: Some(Instant::now()),
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = tokio::select! {
            opened = link.open() => opened,
            () = driver.wait_without_stream() => return,
        };
        let error = match opened {
            Ok(streams) => match driver.talk(streams).await {
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
        if since.elapsed() >= PATIENCE {
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

    /// Talks until the stream ends.
    async fn talk(&mut self, streams: Streams) -> End {
        let Streams { reader, mut writer, guard: _guard, complaint } = streams;
        let mut lines = Lines::new(reader);
        let first = match timeout(HELLO_TIMEOUT, lines.next::<Message>()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return End::Lost(complaint.told("ended before the agent said hello").await),
            Ok(Err(error)) => return End::Lost(complaint.told(&error.to_string()).await),
            Err(_) => return End::Lost(complaint.told("the agent does not say hello").await),
        };
        if let Body::Hello(hello) = &first.body {
            self.hello.send_replace(Some(hello.clone()));
        }
        let mut heard = match self.dialogue.hear(first) {
            Ok(heard) => heard,
            Err(error) => return End::Useless(error),
        };
        self.lost = None;
        // Reading and writing must not wait for each other: both directions can be full at once.
        let (say, mut saying) = mpsc::unbounded_channel::<Vec<Request>>();
        let write = async move {
            while let Some(mut requests) = saying.recv().await {
                while let Ok(more) = saying.try_recv() {
                    requests.extend(more);
                }
                write_lines(&mut writer, &requests).await?;
            }
            std::io::Result::Ok(())
        };
        let mut write = std::pin::pin!(write);
        loop {
            self.deliver(&mut heard);
            if !heard.say.is_empty() {
                // The receiver lives as long as this loop.
                let _ = say.send(std::mem::take(&mut heard.say));
            }
            tokio::select! {
                written = &mut write => {
                    return End::Lost(written.err().map_or_else(|| "closed".into(), |error| error.to_string()));
                }
                message = lines.next::<Message>() => match message {
                    Ok(Some(message)) => match self.dialogue.hear(message) {
                        Ok(next) => heard = next,
                        Err(error) => return End::Useless(error),
                    },
                    Ok(None) => return End::Lost(complaint.told("ended").await),
                    Err(error) => return End::Lost(error.to_string()),
                },
                command = self.commands.recv() => match command {
                    Some(command) => heard = Heard { say: self.ask(command), ..Heard::default() },
                    None => return End::Dropped,
                },
            }
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
