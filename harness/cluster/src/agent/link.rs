//! Opens the stream to an agent: exec into its pod, carrying the agent there first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::error::{REMEDY, innermost, is_missing_right};

/// How long an agent may take to say hello on a new stream.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// How long exec may take to be accepted.
const EXEC_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the agent's bytes may take into the pod.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How much is passed on at once, bytes. Each stream keeps two such buffers for as long as it lives, and a run has dozens of
/// streams.
const BUFFER: usize = 32 * 1024;
/// How much of what a program complains about is kept, bytes.
const COMPLAINT: usize = 2048;
/// How long is waited for a complaint after a stream has ended.
const COMPLAINT_WAIT: Duration = Duration::from_millis(300);

/// Something that opens streams to one agent.
#[async_trait]
pub trait Link: Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// Why it cannot be opened, and whether there is any use in trying again.
    async fn open(&self) -> Result<Streams, LinkError>;

    /// How long the agent may take until it says hello for the first time: longer where its machine has to start before.
    fn first_hello(&self) -> Duration {
        HELLO_TIMEOUT
    }
}

/// Why a stream cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// It may work later.
    Failed(String),
    /// The pod is gone, or the user may not go there: it never will.
    Gone(String),
}

/// An open stream.
pub struct Streams {
    /// What the agent says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What is said to it.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Keeps the stream open.
    pub guard: Box<dyn Send>,
    /// What the program says on standard error.
    pub complaint: Complaint,
    /// Whether it is a console: nobody there knows when somebody comes or goes, others speak there, too, and what is said
    /// may be lost.
    pub console: bool,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams")
    }
}

/// What a program says on standard error, as far as it is kept.
#[derive(Clone, Debug, Default)]
pub struct Complaint(Arc<Mutex<String>>);

impl Complaint {
    /// Collects from a stream until it ends.
    fn collect(mut from: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let complaint = Self::default();
        let text = complaint.0.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let mut text = text.lock().await;
                if text.len() < COMPLAINT {
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
            }
        });
        complaint
    }

    /// The text, with what else is known.
    pub(super) async fn told(&self, what: &str) -> String {
        let said = timeout(COMPLAINT_WAIT, async {
            loop {
                let said = self.0.lock().await.trim().to_owned();
                if !said.is_empty() {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        match said.await {
            Ok(said) => format!("{what}: {}", said.replace('\n', "; ")),
            Err(_) => what.to_owned(),
        }
    }
}

/// Exec into a container.
pub struct Exec {
    /// The pods of its namespace.
    pub pods: Api<Pod>,
    /// The pod.
    pub pod: String,
    /// Its uid: a pod that was replaced has other agents.
    pub uid: Option<String>,
    /// The container; `None` for the only one.
    pub container: Option<String>,
    /// Where the agent lives there.
    pub directory: String,
    /// Uploads at once: each is a whole agent through the API server.
    pub uploads: Arc<Semaphore>,
    /// Whether the agent is there already.
    uploaded: AtomicBool,
}

impl Exec {
    /// A link to the agent in a container.
    #[must_use]
    pub fn new(
        pods: Api<Pod>,
        pod: &str,
        uid: Option<String>,
        container: Option<&str>,
        directory: &str,
        uploads: Arc<Semaphore>,
    ) -> Self {
        Self {
            pods,
            pod: pod.into(),
            uid,
            container: container.map(str::to_owned),
            directory: directory.into(),
            uploads,
            uploaded: AtomicBool::new(false),
        }
    }

    async fn exec(&self, script: &str) -> Result<AttachedProcess, LinkError> {
        let params = AttachParams {
            container: self.container.clone(),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdin_buf_size: Some(BUFFER),
            max_stdout_buf_size: Some(BUFFER),
            max_stderr_buf_size: Some(BUFFER),
        };
        match timeout(EXEC_TIMEOUT, self.pods.exec(&self.pod, ["/bin/sh", "-c", script], &params)).await {
            Ok(Ok(process)) => Ok(process),
            Ok(Err(error)) => Err(self.refused(&error).await),
            Err(_) => Err(LinkError::Failed(format!(
                "exec into {} is not answered within {} s",
                self.pod,
                EXEC_TIMEOUT.as_secs()
            ))),
        }
    }

    /// A pod that is gone, finished or replaced never comes back, nor does a right that is missing come by itself.
    async fn refused(&self, error: &kube::Error) -> LinkError {
        if let kube::Error::Api(status) = error
            && is_missing_right(status)
        {
            return LinkError::Gone(format!("exec into {}: {}; {REMEDY}", self.pod, status.message));
        }
        let why = format!("exec into {}: {}", self.pod, innermost(error));
        match self.pods.get_opt(&self.pod).await {
            Ok(None) => LinkError::Gone(format!("pod {} is gone", self.pod)),
            Ok(Some(pod)) => {
                let replaced = self.uid.is_some() && pod.metadata.uid != self.uid;
                let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
                if replaced || phase == "Succeeded" || phase == "Failed" {
                    LinkError::Gone(format!("pod {} has ended ({phase})", self.pod))
                } else {
                    LinkError::Failed(why)
                }
            }
            Err(_) => LinkError::Failed(why),
        }
    }

    async fn upload(&self, process: &mut AttachedProcess) -> Result<Box<dyn AsyncWrite + Send + Unpin>, LinkError> {
        let mut writer = process.stdin().ok_or_else(|| LinkError::Failed("exec gave no standard input".into()))?;
        let sent = async {
            writer.write_all(udn_binaries::AGENT).await?;
            writer.flush().await
        };
        match timeout(UPLOAD_TIMEOUT, sent).await {
            Ok(Ok(())) => Ok(Box::new(writer)),
            Ok(Err(error)) => Err(LinkError::Failed(format!("the agent could not be sent into {}: {error}", self.pod))),
            Err(_) => {
                let seconds = UPLOAD_TIMEOUT.as_secs();
                Err(LinkError::Failed(format!("the agent could not be sent into {} within {seconds} s", self.pod)))
            }
        }
    }
}

/// The script that attaches; with `size` after writing that many bytes of standard input to the agent's file.
///
/// One exec does both: `head -c` takes the agent's bytes and leaves the rest of the stream to the agent, which says
/// hello first, so nothing of the dialogue can be swallowed.
fn script(directory: &str, size: Option<usize>) -> String {
    let attach = format!("exec {directory}/agent attach --socket {directory}/agent.sock");
    match size {
        None => attach,
        Some(size) => format!(
            "mkdir -p {directory} && head -c {size} > {directory}/agent.new && \
             test \"$(wc -c < {directory}/agent.new)\" -eq {size} && chmod 755 {directory}/agent.new && \
             mv -f {directory}/agent.new {directory}/agent && {attach}"
        ),
    }
}

#[async_trait]
impl Link for Exec {
    async fn open(&self) -> Result<Streams, LinkError> {
        let uploaded = self.uploaded.load(Ordering::Relaxed);
        let permit = if uploaded { None } else { self.uploads.acquire().await.ok() };
        let size = (!uploaded).then_some(udn_binaries::AGENT.len());
        let mut process = self.exec(&script(&self.directory, size)).await?;
        let complaint = process.stderr().map(Complaint::collect).unwrap_or_default();
        let writer = if uploaded {
            let writer = process.stdin().ok_or_else(|| LinkError::Failed("exec gave no standard input".into()))?;
            Box::new(writer)
        } else {
            match self.upload(&mut process).await {
                Ok(writer) => writer,
                Err(LinkError::Failed(why)) => return Err(LinkError::Failed(complaint.told(&why).await)),
                Err(gone) => return Err(gone),
            }
        };
        drop(permit);
        // A program that was sent and does not start is sent again: only a hello would prove it, and the next stream
        // shows soon enough.
        self.uploaded.store(!uploaded, Ordering::Relaxed);
        let reader = process.stdout().ok_or_else(|| LinkError::Failed("exec gave no standard output".into()))?;
        Ok(Streams { reader: Box::new(reader), writer, guard: Box::new(process), complaint, console: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_script_carries_and_attaches() {
        assert_eq!(script("/udn", None), "exec /udn/agent attach --socket /udn/agent.sock");
        let script = script("/udn", Some(600_000));
        assert!(script.starts_with("mkdir -p /udn && head -c 600000 > /udn/agent.new && "), "{script}");
        assert!(script.ends_with("&& exec /udn/agent attach --socket /udn/agent.sock"), "{script}");
    }

    #[tokio::test]
    async fn complaints_are_told_with_what_is_known() {
        let complaint = Complaint::collect(&b"sh: head: not found\nsh: x\n"[..]);
        assert_eq!(complaint.told("ended").await, "ended: sh: head: not found; sh: x");
        assert_eq!(Complaint::default().told("ended").await, "ended");
    }
}
