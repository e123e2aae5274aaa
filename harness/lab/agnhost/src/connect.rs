//! The client whose last word on standard error tests look for: `TIMEOUT`, `REFUSED`, `DNS` or `OTHER`.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::Arguments;

/// Where no timeout is given, the kernel's; this is longer than that.
const NO_TIMEOUT: Duration = Duration::from_secs(300);

/// Connects once. 0 if that worked.
pub(crate) fn run(words: impl Iterator<Item = String>) -> ExitCode {
    match try_once(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(word) => {
            eprintln!("{word}");
            ExitCode::FAILURE
        }
    }
}

fn try_once(words: impl Iterator<Item = String>) -> Result<(), String> {
    let arguments = Arguments::parse(words, &["timeout", "protocol"]).map_err(|problem| format!("OTHER: {problem}"))?;
    let [target] = arguments.rest() else { return Err("OTHER: exactly one HOST:PORT is needed".to_owned()) };
    let timeout = match arguments.value("timeout") {
        Some(text) => duration(text).ok_or_else(|| format!("OTHER: {text:?} is no duration such as 3s"))?,
        None => Duration::ZERO,
    };
    let timeout = if timeout.is_zero() { NO_TIMEOUT } else { timeout };
    let address = target.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or("DNS")?;
    let connected = match arguments.value("protocol").unwrap_or("tcp") {
        "tcp" => TcpStream::connect_timeout(&address, timeout).map(drop),
        "udp" => ask_udp(address, timeout),
        other => return Err(format!("OTHER: protocol {other:?} is not supported here")),
    };
    connected.map_err(|error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "TIMEOUT".to_owned(),
        ErrorKind::ConnectionRefused => "REFUSED".to_owned(),
        _ => format!("OTHER: {error}"),
    })
}

/// UDP has no connection: a netexec answers a question, a missing one by ICMP.
fn ask_udp(address: SocketAddr, timeout: Duration) -> io::Result<()> {
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(b"echo connect")?;
    socket.recv(&mut [0; 64]).map(drop)
}

/// `300ms`, `3s`, `2m`, a bare number of seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().ok()?;
    let seconds = match text.strip_prefix(digits)? {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn connect(words: &[&str]) -> Result<(), String> {
        try_once(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn the_word_says_what_happened() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let open = listener.local_addr().expect("own address").to_string();
        assert_eq!(connect(&["--timeout=1s", &open]), Ok(()));
        drop(listener);
        assert_eq!(connect(&["--timeout", "1s", &open]), Err("REFUSED".to_owned()));
        assert_eq!(connect(&["--protocol", "udp", "--timeout", "1s", &open]), Err("REFUSED".to_owned()));
        let silent = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let silent = silent.local_addr().map(|address| (silent, address.to_string())).expect("own address");
        assert_eq!(connect(&["--protocol", "udp", "--timeout", "100ms", &silent.1]), Err("TIMEOUT".to_owned()));
        assert_eq!(connect(&["--timeout=1s", "no.such.host.invalid:80"]), Err("DNS".to_owned()));
        assert!(connect(&["--protocol", "sctp", &open]).is_err_and(|word| word.starts_with("OTHER")));
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, milliseconds) in [("300ms", 300), ("3s", 3000), ("2m", 120_000), ("5", 5000), ("1.5s", 1500)] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(duration("soon"), None);
        assert_eq!(duration("-1s"), None);
    }
}
