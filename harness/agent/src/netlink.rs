//! Asking and telling the kernel by routing netlink.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::IpAddr;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

// `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Length and type of an attribute.
const ATTRIBUTE_HEADER: usize = 4;
/// Answers come in pieces of at most this, bytes.
const PIECE: usize = 32 * 1024;

/// Lists objects: `request` is the message type, `family` an address family or 0, `fixed` the length of the structure
/// before the attributes, in the request and in the answers. `each` gets the structure and the attributes.
pub(crate) fn dump(
    request: u16,
    family: u8,
    fixed: usize,
    mut each: impl FnMut(&[u8], Attributes<'_>),
) -> Result<(), Errno> {
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let length = HEADER + fixed;
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.push(family);
    message.resize(length, 0);
    net::send(&socket, &message, SendFlags::empty())?;

    let mut buffer = alloc::vec![0; PIECE];
    loop {
        let (length, _) = net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some(whole) = u32_at(rest, 0).and_then(|size| rest.get(..size as usize)) {
            match u16_at(whole, 4) {
                Some(NLMSG_DONE) => return Ok(()),
                Some(NLMSG_ERROR) => {
                    let code = u32_at(whole, HEADER).unwrap_or(0).cast_signed();
                    return Err(Errno::from_raw_os_error(code.wrapping_neg()));
                }
                _ => {}
            }
            if let Some((structure, attributes)) = whole.get(HEADER..).and_then(|body| body.split_at_checked(fixed)) {
                each(structure, Attributes(attributes));
            }
            rest = rest.get(align(whole.len())..).unwrap_or_default();
            if whole.is_empty() {
                break;
            }
        }
    }
}

/// A message that changes something: the structure that it begins with, then attributes.
pub(crate) struct Change {
    message: Vec<u8>,
}

impl Change {
    /// `kind` is the message type; `flags` say whether something is created or replaced.
    pub(crate) fn new(kind: u16, flags: u16, structure: &[u8]) -> Self {
        let mut message = Vec::with_capacity(64);
        // The length is filled in at the end.
        message.extend(0_u32.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend(1_u32.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(structure);
        Self { message }
    }

    /// Adds an attribute; its value has at most a few bytes.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.message.resize(align(self.message.len()), 0);
        self.message.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
        self.message.extend(kind.to_ne_bytes());
        self.message.extend(value);
        self
    }

    /// Lets the kernel do it.
    pub(crate) fn make(mut self) -> Result<(), Errno> {
        let length = self.message.len() as u32;
        self.message[..4].copy_from_slice(&length.to_ne_bytes());
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        net::send(&socket, &self.message, SendFlags::empty())?;
        let mut buffer = [0; 512];
        let (length, _) = net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let answer = buffer.get(..length).unwrap_or_default();
        let code = u32_at(answer, HEADER).filter(|_| u16_at(answer, 4) == Some(NLMSG_ERROR)).ok_or(Errno::PROTO)?;
        if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.cast_signed().wrapping_neg())) }
    }
}

/// Attributes: type and value, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        // The two highest bits are flags.
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn align(length: usize) -> usize {
    (length + 3) & !3
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An address in network order, by its length.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// `0a:58:0a:f4:00:05`.
pub(crate) fn mac(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (position, byte) in bytes.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{byte:02x}", if position == 0 { "" } else { ":" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_walked_with_padding_and_a_cut_one_ends_it() {
        let mut bytes = Vec::new();
        for (kind, value) in [(1_u16, &b"lo\0"[..]), (0x8002, &[1, 2, 3, 4])] {
            bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(align(bytes.len()), 0);
        }
        bytes.extend([9, 0, 3, 0, 1]);
        let found: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(found, [(1, &b"lo\0"[..]), (2, &[1, 2, 3, 4])]);
    }

    #[test]
    fn a_mac_reads_as_usual() {
        assert_eq!(mac(&[0x0a, 0x58, 0x0a, 0xf4, 0, 5]), "0a:58:0a:f4:00:05");
        assert_eq!(mac(&[]), "");
    }
}
