//! DHCPv4 messages (RFC 2131, 2132). Servers are strangers: nothing here trusts a length.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use crate::protocol::Dhcpv4Lease;

pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const ACK: u8 = 5;
pub(super) const NAK: u8 = 6;

const MASK: u8 = 1;
const ROUTER: u8 = 3;
const RESOLVER: u8 = 6;
const HOSTNAME: u8 = 12;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const REQUESTED_ADDRESS: u8 = 50;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const WANTED: u8 = 55;
const LARGEST: u8 = 57;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const CLIENT: u8 = 61;
const PAD: u8 = 0;
const END: u8 = 255;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the cookie is; before it are the fields of BOOTP.
const FIELDS: usize = 236;
/// The shortest message that every relay passes.
const SHORTEST: usize = 300;
const ETHERNET: u8 = 1;
/// The answer is to be broadcast: there is no address that it could be sent to.
const BROADCAST: [u8; 2] = [0x80, 0];

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) kind: u8,
    pub(super) transaction: u32,
    pub(super) mac: [u8; 6],
    /// Own address, once there is one.
    pub(super) own: Option<Ipv4Addr>,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) seconds: u16,
}

impl Question {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut message = alloc::vec![1, ETHERNET, 6, 0];
        message.extend(self.transaction.to_be_bytes());
        message.extend(self.seconds.to_be_bytes());
        message.extend(if self.own.is_some() { [0, 0] } else { BROADCAST });
        message.extend(self.own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        message.resize(28, 0);
        message.extend(self.mac);
        message.resize(FIELDS, 0);
        message.extend(COOKIE);
        message.extend([KIND, 1, self.kind, CLIENT, 7, ETHERNET]);
        message.extend(self.mac);
        for (option, address) in [(REQUESTED_ADDRESS, self.requested), (SERVER, self.server)] {
            if let Some(address) = address {
                message.extend([option, 4]);
                message.extend(address.octets());
            }
        }
        message.extend([LARGEST, 2]);
        message.extend(1500_u16.to_be_bytes());
        let wanted = [MASK, ROUTER, RESOLVER, HOSTNAME, DOMAIN, MTU, LEASE_TIME, SERVER, RENEWAL_TIME, REBINDING_TIME];
        message.extend([WANTED, wanted.len() as u8]);
        message.extend(wanted);
        message.push(END);
        message.resize(message.len().max(SHORTEST), PAD);
        message
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: u8,
    /// Meaningless in a refusal.
    pub(super) lease: Dhcpv4Lease,
    /// Seconds until the lease is to be renewed, and by any server.
    pub(super) renew_s: Option<u32>,
    pub(super) rebind_s: Option<u32>,
}

/// Reads a reply to this client in this transaction.
pub(super) fn read(message: &[u8], transaction: u32, mac: [u8; 6]) -> Option<Reply> {
    let is_ours = message.first() == Some(&2)
        && message.get(4..8)? == transaction.to_be_bytes()
        && message.get(28..34)? == mac
        && message.get(FIELDS..FIELDS + 4)? == COOKIE;
    if !is_ours {
        return None;
    }
    let address = address_at(message.get(16..20)?)?;
    let mut reply = Reply {
        kind: 0,
        lease: Dhcpv4Lease {
            address,
            prefix: default_prefix(address),
            server: Ipv4Addr::UNSPECIFIED,
            lease_s: u32::MAX,
            routers: Vec::new(),
            resolvers: Vec::new(),
            mtu: None,
            hostname: None,
            domain: None,
            granted_us: 0,
            renewals: 0,
        },
        renew_s: None,
        rebind_s: None,
    };
    let mut rest = message.get(FIELDS + 4..)?;
    while let Some((&option, behind)) = rest.split_first() {
        if option == END {
            break;
        }
        if option == PAD {
            rest = behind;
            continue;
        }
        let Some((&length, behind)) = behind.split_first() else { break };
        let Some((value, behind)) = behind.split_at_checked(usize::from(length)) else { break };
        reply.take(option, value);
        rest = behind;
    }
    (reply.kind != 0).then_some(reply)
}

impl Reply {
    fn take(&mut self, option: u8, value: &[u8]) {
        let lease = &mut self.lease;
        match option {
            KIND => self.kind = value.first().copied().unwrap_or(0),
            MASK => lease.prefix = address_at(value).map_or(lease.prefix, |mask| mask.to_bits().leading_ones() as u8),
            ROUTER => lease.routers = addresses(value),
            RESOLVER => lease.resolvers = addresses(value),
            HOSTNAME => lease.hostname = name(value),
            DOMAIN => lease.domain = name(value),
            MTU => lease.mtu = value.try_into().ok().map(u16::from_be_bytes),
            LEASE_TIME => lease.lease_s = seconds(value).unwrap_or(lease.lease_s),
            SERVER => lease.server = address_at(value).unwrap_or(lease.server),
            RENEWAL_TIME => self.renew_s = seconds(value),
            REBINDING_TIME => self.rebind_s = seconds(value),
            _ => {}
        }
    }
}

fn seconds(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn address_at(value: &[u8]) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(value.get(..4)?).ok()?.into())
}

fn addresses(value: &[u8]) -> Vec<Ipv4Addr> {
    value.chunks_exact(4).filter_map(address_at).collect()
}

/// A name; nothing that could break a file of lines and words, or JSON.
fn name(value: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_name && !text.is_empty()).then(|| text.into())
}

/// By class, as before there were masks.
const fn default_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::guest) const MAC: [u8; 6] = [0x0a, 0x58, 10, 0, 0, 5];

    /// What a server answers.
    pub(in crate::guest) fn answer(question: &[u8], kind: u8, options: &[&[u8]]) -> Vec<u8> {
        let mut message = question[..FIELDS + 4].to_vec();
        message[0] = 2;
        message[16..20].copy_from_slice(&[10, 0, 0, 5]);
        message.extend([KIND, 1, kind, SERVER, 4, 169, 254, 1, 1]);
        options.iter().for_each(|option| message.extend(*option));
        message.push(END);
        message
    }

    fn question(kind: u8) -> Question {
        Question { kind, transaction: 7, mac: MAC, own: None, requested: None, server: None, seconds: 1 }
    }

    #[test]
    fn a_question_has_what_servers_look_at() {
        let bytes = Question { requested: Some([10, 0, 0, 5].into()), ..question(REQUEST) }.bytes();
        assert_eq!((bytes.len(), &bytes[..12]), (300, &[1, 1, 6, 0, 0, 0, 0, 7, 0, 1, 0x80, 0][..]));
        assert_eq!(&bytes[28..34], MAC);
        assert_eq!(&bytes[236..243], [99, 130, 83, 99, 53, 1, 3]);
        assert!(bytes.windows(6).any(|window| window == [50, 4, 10, 0, 0, 5]));
    }

    #[test]
    fn ovns_answer_is_read() {
        let bytes = answer(
            &question(DISCOVER).bytes(),
            OFFER,
            &[
                &[1, 4, 255, 255, 0, 0],
                &[3, 4, 10, 0, 0, 1],
                &[6, 8, 10, 96, 0, 10, 10, 96, 0, 11],
                &[12, 2, b'd', b'b'],
                &[26, 2, 5, 120],
                &[51, 4, 0, 0, 13, 172],
                &[0, 0, 250, 1, 9],
            ],
        );
        let reply = read(&bytes, 7, MAC).expect("a reply");
        assert_eq!((reply.kind, reply.renew_s), (OFFER, None));
        let lease = reply.lease;
        assert_eq!((lease.address, lease.prefix, lease.lease_s), ([10, 0, 0, 5].into(), 16, 3500));
        assert_eq!((lease.mtu, lease.hostname.as_deref()), (Some(1400), Some("db")));
        assert_eq!(lease.server, Ipv4Addr::from([169, 254, 1, 1]));
        assert_eq!(lease.resolvers.len(), 2);
    }

    #[test]
    fn hostile_answers_are_read_without_harm() {
        let whole = answer(&question(DISCOVER).bytes(), OFFER, &[&[12, 3, b'a', b'\n', b'b'], &[26, 1, 5], &[1, 2, 9]]);
        let lease = read(&whole, 7, MAC).expect("a reply").lease;
        assert_eq!((lease.hostname, lease.mtu, lease.prefix), (None, None, 8));
        for length in 0..whole.len() {
            let _ = read(&whole[..length], 7, MAC);
        }
        for at in FIELDS..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = read(&changed, 7, MAC);
            }
        }
        assert_eq!(read(&whole, 8, MAC), None, "another transaction");
        assert_eq!(read(&whole, 7, [0; 6]), None, "another client");
    }
}
