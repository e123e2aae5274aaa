//! From inside a lab to an API server that the host reaches: each connection to the socket becomes one to the server.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitCode};
use std::time::Duration;

use udn_lab_sys::sandbox::attendant;

use crate::error::Error;
use crate::existing::ApiServer;

/// First argument that makes the program one.
const COMMAND: &str = "__lab-relay";
/// How long the server may take to answer a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Becomes a relay when the arguments ask for one.
#[must_use]
pub(crate) fn internal(args: &[OsString]) -> Option<ExitCode> {
    if args.get(1)? != OsStr::new(COMMAND) {
        return None;
    }
    Some(attendant::main("relay", args.get(2..).unwrap_or_default(), |inside, rest| {
        let [host, port] = rest else { return };
        let (Some(host), Some(port)) = (host.to_str(), port.to_str().and_then(|port| port.parse().ok())) else {
            return;
        };
        match connect(host, port) {
            Ok(server) => carry(&inside, &server),
            Err(error) => eprintln!("cannot reach the API server at {host}:{port}: {error}"),
        }
    }))
}

/// Starts a relay to `server` that listens on `socket` and ends with the process `keeper`.
pub(super) fn start(keeper: u32, socket: &Path, server: &ApiServer, log: &File) -> Result<Child, Error> {
    let port = server.port.to_string();
    Ok(attendant::start(COMMAND, keeper, socket, &[OsStr::new(&server.host), OsStr::new(&port)], Some(log))?)
}

/// Connects to the first address of `host` that answers.
pub(super) fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Carries bytes both ways until both sides have ended.
fn carry(inside: &UnixStream, server: &TcpStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*inside, &mut &*server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &*server, &mut &*inside);
        let _ = inside.shutdown(Shutdown::Write);
    });
}
