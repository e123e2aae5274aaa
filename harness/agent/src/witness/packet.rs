//! What a captured packet is.

use core::net::{IpAddr, SocketAddr};

use pnet_packet::Packet;
use pnet_packet::icmp::{IcmpPacket, IcmpTypes};
use pnet_packet::icmpv6::{Icmpv6Packet, Icmpv6Types};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::tcp::{TcpFlags, TcpPacket};
use pnet_packet::udp::UdpPacket;

use crate::probe::payload;
use crate::protocol::Transport;

/// How an agent's answer over UDP begins ([`crate::protocol::Banner`]): no arrival, but the end of a probe from here.
const ANSWER: &[u8] = b"{\"identity\":";

/// The start of a probe, by anybody, or a flow's marked frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) transport: Transport,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) nonce: Option<u64>,
}

/// Reads a packet that begins with its IP header; none if it is no SYN, datagram or echo request.
pub(super) fn parse(v6: bool, packet: &[u8]) -> Option<Seen> {
    if v6 {
        let ip = Ipv6Packet::new(packet)?;
        let (source, destination) = (ip.get_source().octets().into(), ip.get_destination().octets().into());
        transport(ip.get_next_header(), packet.get(Ipv6Packet::minimum_packet_size()..)?, source, destination)
    } else {
        let ip = Ipv4Packet::new(packet)?;
        if ip.get_fragment_offset() != 0 {
            return None;
        }
        let (source, destination) = (ip.get_source().octets().into(), ip.get_destination().octets().into());
        transport(
            ip.get_next_level_protocol(),
            packet.get(usize::from(ip.get_header_length()) * 4..)?,
            source,
            destination,
        )
    }
}

fn transport(protocol: IpNextHeaderProtocol, bytes: &[u8], source: IpAddr, destination: IpAddr) -> Option<Seen> {
    let (transport, source_port, destination_port, nonce) = match protocol {
        IpNextHeaderProtocols::Tcp => {
            let tcp = TcpPacket::new(bytes)?;
            if tcp.get_flags() & (TcpFlags::SYN | TcpFlags::ACK) != TcpFlags::SYN {
                return None;
            }
            (Transport::Tcp, tcp.get_source(), tcp.get_destination(), None)
        }
        IpNextHeaderProtocols::Udp => {
            let udp = UdpPacket::new(bytes)?;
            let payload = bytes.get(UdpPacket::minimum_packet_size()..)?;
            if payload.starts_with(ANSWER) || payload::frame_nonce(payload).is_some() {
                return None;
            }
            (Transport::Udp, udp.get_source(), udp.get_destination(), payload::nonce(payload))
        }
        IpNextHeaderProtocols::Icmp => {
            let icmp = IcmpPacket::new(bytes)?;
            if icmp.get_icmp_type() != IcmpTypes::EchoRequest {
                return None;
            }
            (Transport::Icmp, 0, 0, echo_nonce(icmp.payload().get(4..)?)?)
        }
        IpNextHeaderProtocols::Icmpv6 => {
            let icmp = Icmpv6Packet::new(bytes)?;
            if icmp.get_icmpv6_type() != Icmpv6Types::EchoRequest {
                return None;
            }
            (Transport::Icmp, 0, 0, echo_nonce(icmp.payload().get(4..)?)?)
        }
        _ => return None,
    };
    Some(Seen {
        transport,
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
        nonce,
    })
}

/// The nonce of an echo request, if it has one; none at all for a flow's frame, which is no arrival.
fn echo_nonce(payload: &[u8]) -> Option<Option<u64>> {
    payload::frame_nonce(payload).is_none().then(|| payload::nonce(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, content: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[3] = (20 + content.len()) as u8;
        packet.extend(content);
        packet
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut header = vec![0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
        header.truncate(20);
        header
    }

    #[test]
    fn only_the_start_of_a_connection_counts() {
        let syn = parse(false, &ipv4(6, &tcp(0x02))).expect("SYN");
        assert_eq!(
            syn,
            Seen {
                transport: Transport::Tcp,
                source: ([10, 0, 0, 1], 40000).into(),
                destination: ([10, 0, 0, 2], 8080).into(),
                nonce: None
            }
        );
        for flags in [0x12, 0x10, 0x04, 0x11, 0x18] {
            assert_eq!(parse(false, &ipv4(6, &tcp(flags))), None, "flags {flags:#x}");
        }
    }

    #[test]
    fn datagrams_carry_their_nonce_and_answers_do_not_count() {
        let udp = |payload: &[u8]| {
            let mut datagram = vec![0x9c, 0x40, 0x1f, 0x90, 0, (8 + payload.len()) as u8, 0, 0];
            datagram.extend(payload);
            parse(false, &ipv4(17, &datagram))
        };
        assert_eq!(udp(b"udn-probe 00000000000000ff\n").and_then(|seen| seen.nonce), Some(255));
        assert_eq!(udp(b"hostname").map(|seen| seen.nonce), Some(None));
        assert_eq!(udp(&payload::frame_with_nonce(7)), None, "flows would push everybody else out");
        assert_eq!(udp(br#"{"identity":"a","peer":"10.0.0.1:1"}"#), None);
    }

    #[test]
    fn echo_requests_count_and_replies_do_not() {
        let echo = |kind| {
            let mut message = vec![kind, 0, 0, 0, 0, 7, 0, 1];
            message.extend(b"udn-probe 0000000000000011\n");
            message
        };
        assert_eq!(parse(false, &ipv4(1, &echo(8))).and_then(|seen| seen.nonce), Some(17));
        assert_eq!(parse(false, &ipv4(1, &echo(0))), None);
        let ipv6 = |kind| {
            let mut packet = vec![0x60, 0, 0, 0, 0, 35, 58, 64];
            packet.extend([0xfd; 16]);
            packet.extend([0xfc; 16]);
            packet.extend(echo(kind));
            parse(true, &packet)
        };
        assert_eq!(ipv6(128).map(|seen| (seen.transport, seen.nonce)), Some((Transport::Icmp, Some(17))));
        assert_eq!(ipv6(129), None);
    }

    #[test]
    fn cut_packets_are_ignored() {
        let whole = ipv4(6, &tcp(0x02));
        for length in 0..whole.len() {
            assert_eq!(parse(false, &whole[..length]), None);
        }
    }
}
