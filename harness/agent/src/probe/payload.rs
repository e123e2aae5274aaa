//! What probes send, and how answers are read.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::protocol::{Banner, FLOW_MAGIC, Identify, Open, PAYLOAD_MAGIC, Probe};

/// What to send over TCP once connected, if anything.
pub(super) const HTTP_HOSTNAME: &[u8] = b"GET /hostname HTTP/1.0\r\nHost: agnhost\r\nConnection: close\r\n\r\n";

/// The datagram of a probe.
pub(super) fn datagram(request: &Probe) -> Vec<u8> {
    match request.identify {
        Identify::Agnhost => b"hostname".to_vec(),
        Identify::Banner | Identify::None => with_nonce(request.nonce),
    }
}

/// Magic, the nonce in 16 hexadecimal digits, newline.
pub(crate) fn with_nonce(nonce: u64) -> Vec<u8> {
    numbered(PAYLOAD_MAGIC, nonce)
}

/// The same as a flow's frame.
pub(crate) fn frame_with_nonce(nonce: u64) -> Vec<u8> {
    numbered(FLOW_MAGIC, nonce)
}

fn numbered(magic: &[u8], nonce: u64) -> Vec<u8> {
    let mut payload = magic.to_vec();
    payload.extend((0..16).map(|digit| b"0123456789abcdef"[(nonce >> (60 - 4 * digit)) as usize & 15]));
    payload.push(b'\n');
    payload
}

/// The nonce of a payload, if it is a probe's.
pub(crate) fn nonce(payload: &[u8]) -> Option<u64> {
    number(payload.strip_prefix(PAYLOAD_MAGIC)?)
}

/// The nonce of a payload, if it is a flow's frame.
pub(crate) fn frame_nonce(payload: &[u8]) -> Option<u64> {
    number(payload.strip_prefix(FLOW_MAGIC)?)
}

fn number(payload: &[u8]) -> Option<u64> {
    let digits = payload.get(..16)?;
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// Is the whole of a TCP answer there?
pub(super) fn is_complete(identify: Identify, received: &[u8]) -> bool {
    match identify {
        Identify::Banner => received.contains(&b'\n'),
        Identify::Agnhost | Identify::None => false,
    }
}

/// Reads what a TCP peer said of itself.
pub(super) fn read_stream(identify: Identify, received: &[u8], rtt_us: u64) -> Open {
    match identify {
        Identify::Banner => read_banner(received, rtt_us),
        Identify::Agnhost => {
            let body = split_once(received, b"\r\n\r\n").filter(|(head, _)| is_ok(head)).map(|(_, body)| body);
            Open { identity: body.and_then(text), seen_as: None, rtt_us }
        }
        Identify::None => Open { rtt_us, ..Open::default() },
    }
}

/// Reads a datagram that came back; none if it does not answer this probe.
pub(super) fn read_datagram(request: &Probe, received: &[u8], rtt_us: u64) -> Option<Open> {
    match request.identify {
        Identify::Banner => {
            let banner = serde_json::from_slice::<Banner>(received).ok();
            let belated = banner.and_then(|banner| banner.nonce).is_some_and(|nonce| nonce != request.nonce);
            (!belated).then(|| read_banner(received, rtt_us))
        }
        Identify::Agnhost => Some(Open { identity: text(received), seen_as: None, rtt_us }),
        Identify::None => Some(Open { rtt_us, ..Open::default() }),
    }
}

/// A banner, or whatever else somebody says who is no agent.
fn read_banner(received: &[u8], rtt_us: u64) -> Open {
    match serde_json::from_slice::<Banner>(received) {
        Ok(banner) => Open { identity: Some(banner.identity), seen_as: Some(banner.peer), rtt_us },
        Err(_) => Open { identity: text(received), seen_as: None, rtt_us },
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let trimmed = text.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_string())
}

fn is_ok(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.") && head.get(8..12) == Some(b" 200")
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Transport;

    #[test]
    fn a_nonce_survives_its_payload() {
        for number in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(nonce(&with_nonce(number)), Some(number));
        }
        assert_eq!(nonce(b"udn-probe 12"), None);
        assert_eq!(nonce(b"hostname"), None);
        assert_eq!((frame_nonce(&frame_with_nonce(7)), nonce(&frame_with_nonce(7))), (Some(7), None));
    }

    #[test]
    fn a_belated_answer_is_not_taken_for_this_ones() {
        let probe = Probe {
            transport: Transport::Udp,
            to: "10.0.0.1:1".parse().expect("address"),
            from: None,
            source_port: None,
            timeout_ms: 1,
            identify: Identify::Banner,
            nonce: 7,
        };
        let answer = |nonce: u64| alloc::format!(r#"{{"identity":"a","peer":"10.0.0.2:9","nonce":{nonce}}}"#);
        assert_eq!(read_datagram(&probe, answer(8).as_bytes(), 1), None);
        let open = read_datagram(&probe, answer(7).as_bytes(), 1).expect("its own");
        assert_eq!((open.identity.as_deref(), open.seen_as), (Some("a"), "10.0.0.2:9".parse().ok()));
    }

    #[test]
    fn strangers_are_quoted() {
        assert_eq!(read_stream(Identify::Banner, b"SSH-2.0-x\r\n", 1).identity.as_deref(), Some("SSH-2.0-x"));
        assert_eq!(read_stream(Identify::Banner, b"", 1).identity, None);
        let http = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npod-1";
        assert_eq!(read_stream(Identify::Agnhost, http, 1).identity.as_deref(), Some("pod-1"));
        assert_eq!(read_stream(Identify::Agnhost, b"HTTP/1.1 404 Not Found\r\n\r\nno", 1).identity, None);
    }
}
