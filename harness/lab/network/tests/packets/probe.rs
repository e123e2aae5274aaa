//! Connects from namespaces and listens in them.

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use udn_lab_sys::netns::Netns;

/// Longer than a SYN's first retransmission.
const DENY: Duration = Duration::from_millis(2200);

/// What came of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// Who answered, and the source address that it saw.
    Open(String, IpAddr),
    /// In whatever manner.
    Closed(String),
}

/// What should.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// This one answers.
    Open(String),
    /// … and sees this source address.
    From(String, IpAddr),
    /// Nobody answers.
    Closed,
    /// A quick refusal.
    Rejected,
}

/// One connection to be tried.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) from: String,
    pub(crate) netns: Netns,
    /// Source address, if it matters.
    pub(crate) source: Option<IpAddr>,
    pub(crate) to: SocketAddr,
    pub(crate) wanted: Wanted,
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} -> {}", self.from, self.to)
    }
}

impl Cell {
    fn holds(&self, seen: &Seen) -> bool {
        match (&self.wanted, seen) {
            (Wanted::Open(who), Seen::Open(answered, _)) => who == answered,
            (Wanted::From(who, source), Seen::Open(answered, seen)) => who == answered && source == seen,
            (Wanted::Closed, Seen::Closed(_)) => true,
            (Wanted::Rejected, Seen::Closed(manner)) => manner.contains("refused"),
            _ => false,
        }
    }
}

/// Answers every connection to `port` with `name` and the peer's address, until the process ends.
pub(crate) fn listen(netns: &Netns, name: &str, port: u16) -> Result<()> {
    let listener =
        netns.run(|| TcpListener::bind(("::", port)))?.with_context(|| format!("listening in {}", netns.name()))?;
    let name = name.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || answer(stream, &name));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) {
    if let Ok(peer) = stream.peer_addr() {
        let _ = write!(stream, "{name} {}", peer.ip().to_canonical());
    }
}

/// Tries all cells at once; returns those that are not as they should be.
pub(crate) fn check(cells: &[Cell]) -> Vec<String> {
    let tried: Vec<(&Cell, Seen)> = std::thread::scope(|scope| {
        let tries: Vec<_> = cells.iter().map(|cell| (cell, scope.spawn(|| attempt(cell)))).collect();
        tries
            .into_iter()
            .map(|(cell, seen)| (cell, seen.join().unwrap_or_else(|_| Seen::Closed("panicked".into()))))
            .collect()
    });
    tried
        .into_iter()
        .filter(|(cell, seen)| !cell.holds(seen))
        .map(|(cell, seen)| format!("{cell}: wanted {:?}, saw {seen:?}", cell.wanted))
        .collect()
}

/// Checks until everything holds or `rounds` are used up.
pub(crate) fn settle(what: &str, cells: &[Cell], rounds: u32) -> Result<()> {
    let mut wrong = Vec::new();
    for round in 1..=rounds {
        wrong = check(cells);
        if wrong.is_empty() {
            println!("ok   {what}: {} cells (round {round})", cells.len());
            return Ok(());
        }
    }
    println!("FAIL {what}: {} of {} cells", wrong.len(), cells.len());
    anyhow::bail!("{what}: {} of {} cells are wrong:\n  {}", wrong.len(), cells.len(), wrong.join("\n  "))
}

fn attempt(cell: &Cell) -> Seen {
    let closed = |error: &dyn fmt::Display| Seen::Closed(error.to_string());
    let connected = cell.netns.run(|| connect(cell.source, cell.to));
    let mut stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return closed(&error),
        Err(error) => return closed(&error),
    };
    let mut text = String::new();
    let _ = stream.set_read_timeout(Some(DENY));
    if let Err(error) = stream.read_to_string(&mut text) {
        return closed(&error);
    }
    match text.split_once(' ').and_then(|(name, peer)| Some((name, peer.parse().ok()?))) {
        Some((name, peer)) => Seen::Open(name.to_owned(), peer),
        None => Seen::Closed(format!("answered {text:?}")),
    }
}

fn connect(source: Option<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let Some(source) = source else { return TcpStream::connect_timeout(&to, DENY) };
    let family = if to.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let raw = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(raw.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    // A blocking connect honours the send timeout.
    setsockopt(&raw, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(2, 200_000))?;
    connect(raw.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(raw))
}
