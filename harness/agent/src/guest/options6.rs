//! DHCPv6 messages (RFC 8415). Servers are strangers: nothing here trusts a length.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

pub(super) const SOLICIT: u8 = 1;
pub(super) const ADVERTISE: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const RENEW: u8 = 5;
pub(super) const REBIND: u8 = 6;
pub(super) const REPLY: u8 = 7;
pub(super) const INFORM: u8 = 11;

const CLIENT: u16 = 1;
const SERVER: u16 = 2;
const ADDRESSES: u16 = 3;
const ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const RESOLVERS: u16 = 23;
const SEARCH: u16 = 24;
const NAME: u16 = 39;

/// DUID by link-layer address, of Ethernet.
const DUID: [u8; 4] = [0, 3, 0, 1];

/// A DUID has at most so many bytes.
const LONGEST_DUID: usize = 130;

/// What a client asks.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) kind: u8,
    /// The low 24 bits count.
    pub(super) transaction: u32,
    pub(super) mac: [u8; 6],
    pub(super) server: Option<&'a [u8]>,
    pub(super) address: Option<Ipv6Addr>,
    /// Hundredths of a second.
    pub(super) elapsed: u16,
}

impl Question<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let [_, a, b, c] = self.transaction.to_be_bytes();
        let mut message = alloc::vec![self.kind, a, b, c];
        put(&mut message, CLIENT, &[&DUID[..], &self.mac].concat());
        if let Some(server) = self.server {
            put(&mut message, SERVER, server);
        }
        if self.kind != INFORM {
            // Identity association: its number, then T1 and T2 as the server likes.
            let mut association = identity(self.mac).to_be_bytes().to_vec();
            association.resize(12, 0);
            if let Some(address) = self.address {
                put(&mut association, ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
            }
            put(&mut message, ADDRESSES, &association);
        }
        put(&mut message, ELAPSED, &self.elapsed.to_be_bytes());
        let wanted: Vec<u8> = [RESOLVERS, SEARCH, NAME].iter().flat_map(|option| option.to_be_bytes()).collect();
        put(&mut message, WANTED, &wanted);
        if self.kind != INFORM {
            // No name to say; the server is to give one. Else it may leave the option out.
            put(&mut message, NAME, &[0]);
        }
        message
    }
}

/// The association's number: one address per interface, so any that stays.
fn identity(mac: [u8; 6]) -> u32 {
    let [_, _, a, b, c, d] = mac;
    u32::from_be_bytes([a, b, c, d])
}

fn put(message: &mut Vec<u8>, option: u16, value: &[u8]) {
    message.extend(option.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
}

/// What a server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: u8,
    pub(super) server: Vec<u8>,
    /// Address and how long it is valid, seconds.
    pub(super) address: Option<(Ipv6Addr, u32)>,
    /// Seconds until it is to be renewed; 0: as the client likes.
    pub(super) renew_s: u32,
    /// Not 0: refused.
    pub(super) status: u16,
    pub(super) resolvers: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
    pub(super) hostname: Option<String>,
}

/// Reads a reply to this client in this transaction.
pub(super) fn read(message: &[u8], transaction: u32, mac: [u8; 6]) -> Option<Reply> {
    let [_, a, b, c] = transaction.to_be_bytes();
    if message.get(1..4)? != [a, b, c] {
        return None;
    }
    let mut reply = Reply { kind: *message.first()?, ..Reply::default() };
    let mut is_ours = false;
    for (option, value) in Options(message.get(4..)?) {
        match option {
            CLIENT => is_ours = value.strip_prefix(&DUID) == Some(&mac),
            SERVER if value.len() <= LONGEST_DUID => reply.server = value.to_vec(),
            STATUS => reply.status = number(value),
            ADDRESSES => reply.take_addresses(value, mac),
            RESOLVERS => reply.resolvers = value.chunks_exact(16).filter_map(address).collect(),
            SEARCH => reply.search = names(value),
            NAME => reply.hostname = value.get(1..).and_then(|labels| names(labels).into_iter().next()),
            _ => {}
        }
    }
    (is_ours && !reply.server.is_empty()).then_some(reply)
}

impl Reply {
    fn take_addresses(&mut self, value: &[u8], mac: [u8; 6]) {
        let (Some(association), Some(options)) = (value.get(..12), value.get(12..)) else { return };
        if !association.starts_with(&identity(mac).to_be_bytes()) {
            return;
        }
        self.renew_s = association.get(4..8).and_then(word).unwrap_or(0);
        for (option, value) in Options(options) {
            match option {
                ADDRESS => {
                    // Address, preferred and valid lifetime.
                    let found = value.get(..16).and_then(address).zip(value.get(20..24).and_then(word));
                    self.address = found.filter(|(_, valid)| *valid > 0).or(self.address);
                }
                STATUS => self.status = number(value),
                _ => {}
            }
        }
    }
}

/// Options: number and value, one after the other; a cut one ends them.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_at_checked(4)?;
        let (value, rest) = rest.split_at_checked(usize::from(number(head.get(2..)?)))?;
        self.0 = rest;
        Some((number(head), value))
    }
}

fn number(value: &[u8]) -> u16 {
    value.get(..2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes)
}

fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn address(value: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(value).ok().map(Ipv6Addr::from)
}

/// Names in DNS's form, without compression; nothing that could break a file of lines and words.
pub(super) fn names(mut labels: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    while let Some((&length, rest)) = labels.split_first() {
        let Some((label, rest)) = rest.split_at_checked(usize::from(length)) else { break };
        labels = rest;
        if length == 0 {
            if !name.is_empty() {
                names.push(core::mem::take(&mut name));
            }
            continue;
        }
        let is_label = label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        let Some(label) = core::str::from_utf8(label).ok().filter(|_| is_label) else { return names };
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(label);
    }
    // A host's own name may come without its end.
    if !name.is_empty() {
        names.push(name);
    }
    names
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::guest) const MAC: [u8; 6] = [0x0a, 0x58, 10, 0, 0, 5];

    /// What a server answers; `valid` seconds for fd00::5, or only the rest.
    pub(in crate::guest) fn answer(question: &[u8], kind: u8, valid: Option<u32>) -> Vec<u8> {
        let mut message = vec![kind, question[1], question[2], question[3]];
        put(&mut message, CLIENT, &[&DUID[..], &MAC].concat());
        put(&mut message, SERVER, &[0, 3, 0, 1, 1, 2, 3, 4, 5, 6]);
        if let Some(valid) = valid {
            let mut association = identity(MAC).to_be_bytes().to_vec();
            association.resize(12, 0);
            let address: Ipv6Addr = "fd00::5".parse().expect("an address");
            let lifetimes = [valid.to_be_bytes(), valid.to_be_bytes()].concat();
            put(&mut association, ADDRESS, &[&address.octets()[..], &lifetimes].concat());
            put(&mut message, ADDRESSES, &association);
        }
        let resolver: Ipv6Addr = "fd00:10:96::a".parse().expect("an address");
        put(&mut message, RESOLVERS, &resolver.octets());
        put(&mut message, NAME, b"\x00\x02db\x03red\x00");
        message
    }

    fn question(kind: u8) -> Vec<u8> {
        Question { kind, transaction: 0x0001_0203, mac: MAC, server: None, address: None, elapsed: 1 }.bytes()
    }

    #[test]
    fn an_answer_is_read() {
        let reply = read(&answer(&question(SOLICIT), ADVERTISE, Some(60)), 0x0001_0203, MAC).expect("a reply");
        assert_eq!((reply.kind, reply.status), (ADVERTISE, 0));
        assert_eq!(reply.address, "fd00::5".parse().ok().map(|address| (address, 60)));
        assert_eq!((reply.resolvers.len(), reply.hostname.as_deref()), (1, Some("db.red")));
    }

    #[test]
    fn hostile_answers_are_read_without_harm() {
        let whole = answer(&question(SOLICIT), ADVERTISE, Some(60));
        for length in 0..whole.len() {
            let _ = read(&whole[..length], 0x0001_0203, MAC);
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = read(&changed, 0x0001_0203, MAC);
            }
        }
        assert_eq!(read(&whole, 1, MAC), None, "another transaction");
        assert_eq!(read(&whole, 0x0001_0203, [0; 6]), None, "another client");
    }

    #[test]
    fn names_are_only_names() {
        assert_eq!(names(b"\x01a\x01b\x00\x01c\x00"), ["a.b", "c"]);
        assert!(names(b"\x03a\nb\x00").is_empty());
        assert!(names(b"\xc0\x0c").is_empty());
    }
}
