//! What a running lab answers, over a socket in its own file system: JSON lines.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use udn_lab_sys::packages::Versions;
use udn_lab_sys::sandbox::FOLDER;

const SOCKET: &str = "control.sock";
const DEADLINE: Duration = Duration::from_secs(5);
/// Longer than all that is waited for when a lab leaves.
const LEAVING: Duration = Duration::from_secs(120);

/// A question to the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How it is.
    Status,
    /// To take what it has put into an API server that was there before away from there, and to do nothing more.
    Leave,
}

/// How leaving an API server went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What stays, since somebody else needs it.
    pub kept: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

/// How a lab is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the lab.
    pub name: String,
    /// Open vSwitch and OVN.
    pub versions: Versions,
    /// Since it is ready, seconds.
    pub uptime_s: u64,
    /// How long it took to get ready, milliseconds.
    pub ready_ms: u64,
    /// Address of the API server on the host.
    pub server: String,
    /// Nodes, control plane first.
    pub nodes: Vec<Node>,
    /// Daemons of Open vSwitch and OVN.
    pub daemons: Vec<Daemon>,
    /// What is wrong with the lab itself; empty when it is sound. A run on a lab with problems says nothing about the network.
    pub problems: Vec<String>,
    /// Daemons that ended by a known defect of theirs and were started again, as a kubelet would: what was found holds.
    #[serde(default)]
    pub mended: Vec<String>,
    /// Daemons that ended and are not started again: nothing more can be learnt from this lab.
    #[serde(default)]
    pub lost: Vec<String>,
    /// Logs of the daemons that there are problems of, as named inside.
    #[serde(default)]
    pub logs: Vec<PathBuf>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Kubernetes name.
    pub name: String,
    /// Underlay address.
    pub ipv4: std::net::Ipv4Addr,
    /// Underlay address.
    pub ipv6: std::net::Ipv6Addr,
}

/// A daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Program.
    pub name: String,
    /// Node, or `central`.
    pub place: String,
    /// Process id inside the lab.
    pub pid: u32,
}

/// The socket as seen inside.
pub(crate) fn inside() -> PathBuf {
    Path::new(FOLDER).join(SOCKET)
}

/// A path inside as the host sees it, `init` being the lab's first process (a process id of the host).
pub(crate) fn from_outside(init: u32, path: &Path) -> PathBuf {
    Path::new("/proc").join(init.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
}

/// Asks the lab whose first process is `init` (a process id of the host) how it is.
///
/// # Errors
/// When it does not answer within five seconds.
pub fn status(init: u32) -> io::Result<Status> {
    ask(init, Request::Status, DEADLINE)
}

/// Lets the lab whose first process is `init` (a process id of the host) leave the API server that it has joined.
///
/// # Errors
/// When it does not answer within two minutes.
pub fn leave(init: u32) -> io::Result<Left> {
    ask(init, Request::Leave, LEAVING)
}

fn ask<T: DeserializeOwned>(init: u32, request: Request, deadline: Duration) -> io::Result<T> {
    let mut stream = UnixStream::connect(from_outside(init, &inside()))?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
