//! The control stream to a probe agent.
//!
//! [`Agent`] is a handle: any number of requests in flight, answers matched by id. A cut stream is attached to again and
//! loses nothing: `dialogue` knows what is unanswered, the agent keeps its answers until they are acknowledged.
//!
//! | module | what it holds |
//! |---|---|
//! | [`dialogue`] | pure: who has said what, what has to be said again |
//! | [`codec`] | JSON Lines on a byte stream |
//! | [`console`] | opens the stream to a guest: its VM's console |
//! | [`link`] | opens the stream: exec into a pod; carries the agent there first |
//! | [`arrivals`] | what arrived at the agent, read once, for many readers |

pub mod arrivals;
pub mod codec;
pub mod console;
pub mod dialogue;
mod driver;
pub mod link;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use udn_agent::protocol::{Body, Failure, Hello, Listen, Op};

use self::link::HELLO_TIMEOUT;

pub use dialogue::Id;
pub use driver::{Command, Met};
pub(crate) use driver::{clock, now_us};
pub use link::{Link, LinkError, Streams};

/// How long a new agent is waited for: upload and start included.
pub const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// Why an agent could not do what it was asked. Three things that must never be mistaken for each other, nor for a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The stream could not be opened: exec was refused, or the program does not start there.
    #[error("cannot be reached by exec: {0}")]
    Exec(String),
    /// The stream was lost and could not be opened again in time.
    #[error("control stream lost: {0}")]
    StreamLost(String),
    /// The agent was reached and could not do it.
    #[error("{0}")]
    Failed(String),
    /// The agent was reached and did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The agent speaks another version of the protocol.
    #[error("speaks protocol {found}, not {expected}; remove the old agent")]
    Protocol {
        /// Its version.
        found: u32,
        /// Ours.
        expected: u32,
    },
}

impl From<Failure> for AgentError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

/// A handle to an agent. Its task ends with the last handle.
#[derive(Clone, Debug)]
pub struct Agent {
    commands: mpsc::UnboundedSender<Command>,
    hello: watch::Receiver<Option<Met>>,
    /// As `hello`, and stays when the stream is lost.
    last: watch::Receiver<Option<Met>>,
    /// How long it may take until it answers for the first time.
    ready_within: Duration,
}

impl Agent {
    /// Starts to attach, and goes on until the last handle is dropped or the link says that it is of no use.
    pub fn start(link: impl Link + 'static, session: u64) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (teller, hello) = watch::channel(None);
        let (rememberer, last) = watch::channel(None);
        let ready_within = READY_TIMEOUT + link.first_hello().saturating_sub(HELLO_TIMEOUT);
        tokio::spawn(driver::drive(Box::new(link), session, receiver, (teller, rememberer)));
        Self { commands, hello, last, ready_within }
    }

    /// Waits until the agent answers for the first time.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ready(&self) -> Result<(), AgentError> {
        self.call(Op::Ping, self.ready_within).await.map(drop)
    }

    /// What the agent said of itself on the present stream; `None` while there is none.
    #[must_use]
    pub fn hello(&self) -> Option<Hello> {
        self.hello.borrow().as_ref().map(|met| met.hello.clone())
    }

    /// How much the harness' clock is ahead of the agent's, microseconds, as the last hello told; 0 while there is none.
    #[must_use]
    pub fn ahead_us(&self) -> i64 {
        self.last.borrow().as_ref().map_or(0, |met| met.ahead_us)
    }

    /// Which life the agent lives, as far as it is attached to.
    #[must_use]
    pub fn life(&self) -> Option<u64> {
        self.hello.borrow().as_ref().map(|met| met.hello.boot)
    }

    /// Which life the agent lived when it was last attached to.
    #[must_use]
    pub fn last_life(&self) -> Option<u64> {
        self.last.borrow().as_ref().map(|met| met.hello.boot)
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn call(&self, op: Op, patience: Duration) -> Result<Body, AgentError> {
        let (answer, answered) = oneshot::channel();
        let gone = || AgentError::StreamLost("its session has ended".into());
        self.commands.send(Command { op, answer, number: None }).map_err(|_| gone())?;
        match timeout(patience, answered).await {
            Ok(Ok(Ok(Body::Failed(failure)))) => Err(failure.into()),
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(AgentError::Late(patience)),
        }
    }

    /// Asks for something that goes on for long: its number, by which later requests speak of it, and its answer at the
    /// end.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn begin(
        &self,
        op: Op,
    ) -> Result<(Id, impl Future<Output = Result<Body, AgentError>> + use<>), AgentError> {
        let gone = || AgentError::StreamLost("its session has ended".into());
        let ((answer, answered), (number, told)) = (oneshot::channel(), oneshot::channel());
        self.commands.send(Command { op, answer, number: Some(number) }).map_err(|_| gone())?;
        let id = told.await.map_err(|_| gone())?;
        Ok((id, async move { answered.await.map_err(|_| gone())? }))
    }

    /// Opens a listener, and opens it again whenever the agent is started anew.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub async fn listen(&self, listen: Listen) -> Result<(), AgentError> {
        self.call(Op::Listen(listen), READY_TIMEOUT).await.map(drop)
    }
}
