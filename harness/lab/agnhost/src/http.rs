//! As much of HTTP/1.1 as a probe needs: requests without a body, answers with a length, connections kept open.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A request's head is shorter than this, bytes; a longer one is refused.
const LONGEST_HEAD: u64 = 16 * 1024;

/// A client that says nothing for this long is left.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Decoded `name=value` pairs behind the question mark.
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    keep_alive: bool,
}

impl Request {
    /// The first value of a query parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        first(&self.query, name)
    }

    /// The first value of a header; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Answers every request on a connection. `answer` gives status code and text.
///
/// # Errors
/// What reading or writing the connection says; the client left, mostly.
pub(crate) fn serve(
    stream: &TcpStream,
    peer: SocketAddr,
    answer: impl Fn(&Request, SocketAddr) -> (u16, String),
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        let Some(request) = parse(&head) else {
            return respond(stream, 400, "Bad Request", false, true);
        };
        if let Some(length) = request.header("content-length") {
            // Nobody here wants the body, but the next request comes after it.
            let length = length.parse().unwrap_or(0);
            io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        }
        let (status, text) = answer(&request, peer);
        respond(stream, status, &text, request.keep_alive, request.method != "HEAD")?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// The head of the next request, without the empty line; none at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    let mut limited = reader.take(LONGEST_HEAD);
    loop {
        let length = limited.read_line(&mut head)?;
        match head.get(head.len() - length..) {
            Some("\r\n" | "\n") if head.trim().is_empty() => head.clear(), // Tolerated before a request.
            Some("\r\n" | "\n") => return Ok(Some(head)),
            Some("") if head.is_empty() => return Ok(None),
            Some(line) if !line.ends_with('\n') => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

fn parse(head: &str) -> Option<Request> {
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let connection = first(&headers, "connection").unwrap_or_default().to_ascii_lowercase();
    let keep_alive =
        if version == "HTTP/1.0" { connection.contains("keep-alive") } else { !connection.contains("close") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    Some(Request { method: method.to_owned(), path: decode(path), query, headers, keep_alive })
}

/// Undoes percent encoding, and `+` for a blank.
fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        decoded.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high * 16 + low
                }
                _ => b'%',
            },
            (other, _) => *other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn respond(mut stream: &TcpStream, status: u16, text: &str, keep_alive: bool, with_body: bool) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Status",
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        text.len()
    );
    if with_body {
        answer.push_str(text);
    }
    stream.write_all(answer.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read() {
        let request =
            parse("GET /echo?msg=a%20b+c%zz&code=418 HTTP/1.1\r\nHost: x\r\nX-A:  b \r\n").expect("a request");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/echo"));
        assert_eq!(request.parameter("msg"), Some("a b c%zz"));
        assert_eq!(request.parameter("code"), Some("418"));
        assert_eq!(request.header("x-a"), Some("b"));
        assert!(request.keep_alive);
        assert!(parse("GET / HTTP/1.1\r\nConnection: Close\r\n").is_some_and(|request| !request.keep_alive));
        assert!(parse("GET / HTTP/1.0\r\n").is_some_and(|request| !request.keep_alive));
        assert_eq!(parse("hello"), None);
        assert_eq!(parse("GET / SPDY/3"), None);
    }

    #[test]
    fn heads_follow_each_other_and_have_a_limit() {
        let mut two = &b"\r\nGET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nA: b\r\n\r\n"[..];
        assert!(read_head(&mut two).expect("a head").is_some_and(|head| head.starts_with("GET /a")));
        assert!(read_head(&mut two).expect("a head").is_some_and(|head| head.starts_with("GET /b")));
        assert_eq!(read_head(&mut two).expect("the end"), None);
        let endless = "x".repeat(100_000);
        assert!(read_head(&mut endless.as_bytes()).is_err());
    }
}
