//! The HTTP and UDP server of `netexec` and `serve-hostname`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::arguments::Arguments;
use crate::http::{self, Request};

/// Pause after the system refused a connection (no free file or thread), so as not to spin.
const BREATHER: Duration = Duration::from_millis(50);

/// A connection's thread needs little stack, and there may be many.
const STACK: usize = 128 * 1024;

/// `netexec`: HTTP and UDP.
///
/// # Errors
/// A sentence: a wrong option, or a port that cannot be listened on.
pub(crate) fn start(words: impl Iterator<Item = String>) -> Result<(), String> {
    let arguments = Arguments::parse(words, &["http-port", "udp-port", "sctp-port", "delay-shutdown"])?;
    no_more(arguments.rest())?;
    if arguments.value("sctp-port").is_some_and(|port| port != "-1") {
        return Err("SCTP is not served here; leave out --sctp-port".to_owned());
    }
    if let Some(port) = arguments.port("http-port", 8080)? {
        start_http(port, answer)?;
    }
    if let Some(port) = arguments.port("udp-port", 8081)? {
        start_udp(port)?;
    }
    Ok(())
}

/// `serve-hostname`: HTTP that answers every path with the host's name.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_serve_hostname(words: impl Iterator<Item = String>) -> Result<(), String> {
    let arguments = Arguments::parse(words, &["port", "http"])?;
    no_more(arguments.rest())?;
    if let Some(port) = arguments.port("port", 9376)? {
        start_http(port, |_, _| (200, hostname()))?;
    }
    Ok(())
}

fn no_more(rest: &[String]) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err(format!("cannot make sense of {rest:?}")) }
}

/// Both families by one socket, or IPv4 where there is no IPv6.
fn any_addresses(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)].map(|address| SocketAddr::new(address, port))
}

fn start_http(port: u16, answer: fn(&Request, SocketAddr) -> (u16, String)) -> Result<(), String> {
    let listener = TcpListener::bind(&any_addresses(port)[..]).map_err(|error| {
        format!("cannot listen on TCP port {port}: {error}; does another container of the pod use it?")
    })?;
    spawn("http", move || {
        loop {
            let served = listener.accept().and_then(|(stream, peer)| {
                let serve = move || {
                    // The client's going away is nobody's problem here.
                    let _ = http::serve(&stream, plain(peer), answer);
                };
                thread::Builder::new().name("http".to_owned()).stack_size(STACK).spawn(serve).map(drop)
            });
            if let Err(error) = served {
                eprintln!("agnhost: cannot serve a connection: {error}");
                thread::sleep(BREATHER);
            }
        }
    })
    .map(|()| println!("Started HTTP server on port {port}"))
}

fn start_udp(port: u16) -> Result<(), String> {
    // Two sockets: an IPv4 answer from an IPv6 socket would be sent from whichever address the kernel likes.
    for address in any_addresses(port) {
        let socket = match bind_udp(address) {
            Ok(socket) => socket,
            Err(error) if address.is_ipv6() => {
                eprintln!("agnhost: no UDP over IPv6: {error}");
                continue;
            }
            Err(error) => return Err(format!("cannot listen on UDP port {port}: {error}")),
        };
        spawn("udp", move || {
            let mut buffer = [0; 2048];
            loop {
                // An ICMP error about an earlier answer comes up here: not the end.
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                    let _ = socket.send_to(answer_datagram(&text, plain(peer)).as_bytes(), peer);
                }
            }
        })?;
    }
    println!("Started UDP server on port {port}");
    Ok(())
}

/// An IPv6 socket that leaves IPv4 to the other one.
fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let opened = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&opened, sockopt::Ipv6V6Only, &true)?;
    }
    bind(opened.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(opened.into())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run);
    started.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

/// IPv4 addresses as such, not mapped into IPv6.
fn plain(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The paths of agnhost's netexec that have a use here.
fn answer(request: &Request, peer: SocketAddr) -> (u16, String) {
    match request.path.as_str() {
        "/" => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (200, format!("NOW: {}.{:09}", now.as_secs(), now.subsec_nanos()))
        }
        "/hostname" | "/hostName" => (200, hostname()),
        "/clientip" => (200, peer.to_string()),
        "/echo" => {
            let status = request.parameter("code").and_then(|code| code.parse().ok()).unwrap_or(200);
            (status, request.parameter("msg").unwrap_or_default().to_owned())
        }
        "/header" => {
            let name = request.parameter("key").unwrap_or_default().to_ascii_lowercase();
            (200, request.header(&name).unwrap_or_default().to_owned())
        }
        "/healthz" | "/readyz" => (200, "ok".to_owned()),
        other => (404, format!("404 page not found: {other}\n")),
    }
}

fn answer_datagram(text: &str, peer: SocketAddr) -> String {
    match text.trim().split_once(' ').unwrap_or((text.trim(), "")) {
        ("hostname", _) => hostname(),
        ("clientip", _) => peer.to_string(),
        ("echo", message) => message.to_owned(),
        (unknown, _) => format!("unknown command {unknown:?}: hostname, clientip or echo"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// Asks a server on loopback whatever `request` says and reads until it closes.
    fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
    }

    #[test]
    fn http_answers_in_a_row_and_sees_plain_addresses() {
        let port = free_port();
        start_http(port, answer).expect("listen");
        let both = ask(
            port,
            "GET /echo?msg=one HTTP/1.1\r\nHost: x\r\n\r\nGET /clientip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        );
        assert!(both.contains("\r\n\r\noneHTTP/1.1 200 OK") && both.contains("\r\n\r\n127.0.0.1:"), "{both}");
        assert!(ask(port, "GET /hostname HTTP/1.0\r\n\r\n").ends_with(&format!("\r\n\r\n{}", hostname())));
        assert!(ask(port, "GET /echo?code=503&msg=no HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 503 "));
        assert!(ask(port, "GET /nowhere HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask(port, "HEAD /hostname HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(ask(port, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn udp_answers_over_both_families() {
        let port = free_port();
        start_udp(port).expect("listen");
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().expect("an address");
            let socket = UdpSocket::bind(SocketAddr::new(address, 0)).expect("bind");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            socket.connect((address, port)).expect("connect");
            let me = socket.local_addr().expect("own address").to_string();
            for (question, expected) in [("echo a b", "a b"), ("hostname\n", &hostname()), ("clientip", &me)] {
                socket.send(question.as_bytes()).expect("send");
                let mut buffer = [0; 100];
                let length = socket.recv(&mut buffer).expect("an answer");
                assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
            }
        }
    }
}
