//! Frames as bytes: pure functions, for what a peer sends and for what it gets.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Length of what every frame begins with, bytes.
pub(super) const HEAD: usize = 8;
/// The longest control frame that is taken, bytes without its head. Those of Kubernetes have less than 100.
const LONGEST_CONTROL: usize = 16 * 1024;
/// Of a control frame's first word.
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
/// Of stream numbers and lengths.
const STREAM: u32 = 0x7fff_ffff;
const LENGTH: u32 = 0x00ff_ffff;
/// Flags.
const LAST: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
/// Kinds of control frames.
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const HEADERS: u16 = 8;

/// What a peer must not send; the connection cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a control frame of version {0}; 3 is known")]
    Version(u16),
    #[error("a control frame of {0} bytes; at most {LONGEST_CONTROL} are taken")]
    TooLong(usize),
    #[error("a control frame of kind {kind} with {length} bytes, which is too short")]
    TooShort { kind: u16, length: usize },
    #[error("a frame for stream 0")]
    StreamZero,
    #[error("a block of headers that cannot be decompressed")]
    Compression,
    #[error("a block of headers of more than {0} bytes when decompressed")]
    LongHeaders(usize),
    #[error("a block of headers whose lengths do not fit, or that is no text")]
    Headers,
    #[error("a stream {0} where streams must have odd and growing numbers")]
    StreamNumber(u32),
}

/// Why a stream or a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Protocol = 1,
    Refused = 3,
}

/// Why no more streams are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    Fine = 0,
    Protocol = 1,
}

/// What a frame begins with; lengths are those of the rest, bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Data { stream: u32, last: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    /// Errors for what cannot be skipped or is not to be kept in memory.
    pub(super) fn parse(mut bytes: [u8; HEAD]) -> Result<Self, Malformed> {
        let is_control = bytes[0] & 0x80 != 0;
        let flags = bytes[4];
        bytes[4] = 0;
        let mut fields = &bytes[..];
        if is_control {
            let (version, kind) = (fields.get_u16() & !CONTROL, fields.get_u16());
            let length = fields.get_u32() as usize;
            if version != VERSION {
                return Err(Malformed::Version(version));
            }
            if length > LONGEST_CONTROL {
                return Err(Malformed::TooLong(length));
            }
            return Ok(Self::Control { kind, flags, length });
        }
        let stream = nonzero(fields.get_u32())?;
        Ok(Self::Data { stream, last: flags & LAST != 0, length: fields.get_u32() as usize })
    }
}

/// A control frame. `block` is compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    Open {
        stream: u32,
        last: bool,
        unidirectional: bool,
        block: Bytes,
    },
    /// More headers, or those of a reply.
    Headers {
        stream: u32,
        last: bool,
        block: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping(u32),
    GoAway,
    /// Settings, windows, and what later versions may add: to be ignored.
    Other,
}

impl Control {
    /// `body` is all that follows the head.
    pub(super) fn parse(kind: u16, flags: u8, mut body: Bytes) -> Result<Self, Malformed> {
        let length = body.len();
        let needed = match kind {
            SYN_STREAM => 10,
            RST_STREAM | GO_AWAY => 8,
            SYN_REPLY | HEADERS | PING => 4,
            _ => 0,
        };
        if length < needed {
            return Err(Malformed::TooShort { kind, length });
        }
        let last = flags & LAST != 0;
        Ok(match kind {
            SYN_STREAM => {
                let stream = nonzero(body.get_u32())?;
                // The stream that this one belongs to, priority, slot.
                body.advance(6);
                Self::Open { stream, last, unidirectional: flags & UNIDIRECTIONAL != 0, block: body }
            }
            SYN_REPLY | HEADERS => Self::Headers { stream: nonzero(body.get_u32())?, last, block: body },
            RST_STREAM => Self::Reset { stream: nonzero(body.get_u32())? },
            PING => Self::Ping(body.get_u32()),
            GO_AWAY => Self::GoAway,
            _ => Self::Other,
        })
    }
}

fn nonzero(stream: u32) -> Result<u32, Malformed> {
    match stream & STREAM {
        0 => Err(Malformed::StreamZero),
        stream => Ok(stream),
    }
}

/// Appends a frame of data. `bytes` must be shorter than 16 MiB.
pub(super) fn put_data(buffer: &mut BytesMut, stream: u32, last: bool, bytes: &[u8]) {
    buffer.reserve(HEAD + bytes.len());
    buffer.put_u32(stream & STREAM);
    put_length(buffer, if last { LAST } else { 0 }, bytes.len());
    buffer.put_slice(bytes);
}

/// Appends the answer to a stream's opening, with a compressed block of headers shorter than 16 MiB.
pub(super) fn put_reply(buffer: &mut BytesMut, stream: u32, block: &[u8]) {
    put_control(buffer, SYN_REPLY, 4 + block.len());
    buffer.put_u32(stream);
    buffer.put_slice(block);
}

/// Appends the end of a stream.
pub(super) fn put_reset(buffer: &mut BytesMut, stream: u32, why: Reset) {
    put_control(buffer, RST_STREAM, 8);
    buffer.put_u32(stream);
    buffer.put_u32(why as u32);
}

/// Appends the answer to a ping, which is the same ping.
pub(super) fn put_ping(buffer: &mut BytesMut, id: u32) {
    put_control(buffer, PING, 4);
    buffer.put_u32(id);
}

/// Appends that no more streams are taken after this one of the peer's.
pub(super) fn put_go_away(buffer: &mut BytesMut, last_stream: u32, why: Away) {
    put_control(buffer, GO_AWAY, 8);
    buffer.put_u32(last_stream);
    buffer.put_u32(why as u32);
}

fn put_control(buffer: &mut BytesMut, kind: u16, length: usize) {
    buffer.reserve(HEAD + length);
    buffer.put_u16(CONTROL | VERSION);
    buffer.put_u16(kind);
    put_length(buffer, 0, length);
}

fn put_length(buffer: &mut BytesMut, flags: u8, length: usize) {
    buffer.put_u32(u32::from(flags) << 24 | length as u32 & LENGTH);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart() {
        let data = Head::parse([0, 0, 0, 5, 1, 1, 0, 2]);
        assert_eq!(data, Ok(Head::Data { stream: 5, last: true, length: 0x1_0002 }));
        let ping = Head::parse([0x80, 3, 0, 6, 0, 0, 0, 4]);
        assert_eq!(ping, Ok(Head::Control { kind: 6, flags: 0, length: 4 }));
    }

    #[test]
    fn bad_heads_are_errors() {
        assert_eq!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]), Err(Malformed::Version(2)));
        assert_eq!(Head::parse([0xff, 0xff, 0, 1, 0, 0, 0, 0]), Err(Malformed::Version(0x7fff)));
        assert_eq!(Head::parse([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]), Err(Malformed::TooLong(0xff_ffff)));
        assert_eq!(Head::parse([0, 0, 0, 0, 0, 0, 0, 1]), Err(Malformed::StreamZero));
    }

    #[test]
    fn control_frames_that_are_too_short_are_errors() {
        for (kind, needed) in [(1, 10), (2, 4), (3, 8), (6, 4), (7, 8), (8, 4)] {
            for length in 0..needed {
                let body = Bytes::from(vec![1; length]);
                assert_eq!(Control::parse(kind, 0, body), Err(Malformed::TooShort { kind, length }));
            }
            assert!(Control::parse(kind, 0, Bytes::from(vec![1; needed])).is_ok(), "{kind}");
        }
        assert_eq!(Control::parse(1, 0, Bytes::from(vec![0; 10])), Err(Malformed::StreamZero));
        assert_eq!(Control::parse(3, 0, Bytes::from_static(&[0x80, 0, 0, 0, 0, 0, 0, 1])), Err(Malformed::StreamZero));
    }

    #[test]
    fn unknown_kinds_are_ignored() {
        for kind in [0, 4, 5, 9, 10, 0xffff] {
            assert_eq!(Control::parse(kind, 0xff, Bytes::new()), Ok(Control::Other));
        }
    }

    #[test]
    fn what_is_built_is_what_is_parsed() {
        let mut buffer = BytesMut::new();
        put_data(&mut buffer, 3, true, b"abc");
        assert_eq!(&buffer[..], b"\0\0\0\x03\x01\0\0\x03abc");
        buffer.clear();
        put_reply(&mut buffer, 7, b"xy");
        assert_eq!(&buffer[..], b"\x80\x03\0\x02\0\0\0\x06\0\0\0\x07xy");
        buffer.clear();
        put_reset(&mut buffer, 9, Reset::Refused);
        assert_eq!(&buffer[..], b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x09\0\0\0\x03");
        assert_eq!(Control::parse(3, 0, buffer.split_off(8).freeze()), Ok(Control::Reset { stream: 9 }));
        buffer.clear();
        put_ping(&mut buffer, 11);
        assert_eq!(&buffer[..], b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x0b");
        buffer.clear();
        put_go_away(&mut buffer, 9, Away::Protocol);
        assert_eq!(&buffer[..], b"\x80\x03\0\x07\0\0\0\x08\0\0\0\x09\0\0\0\x01");
    }
}
