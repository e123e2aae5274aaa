//! How DHCP's messages come and go.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::sys::messages::{broadcast_on_link, receive_captured};
use crate::sys::options::{self, Instruction};

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT_V6: u16 = 546;
const SERVER_PORT_V6: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const UDP: u8 = 17;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// What DHCP's messages over IPv4 come and go by.
pub(super) struct Sockets4 {
    /// Sees answers to an address that is not configured yet, and sends from none.
    pub(super) raw: OwnedFd,
    /// Sends from the own address. It also keeps the kernel from calling answers unreachable.
    udp: OwnedFd,
    interface: u32,
}

impl Sockets4 {
    pub(super) fn open(interface: u32) -> Result<Self, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let protocol = core::num::NonZeroU32::new(u32::from((libc::ETH_P_IP as u16).to_be())).map(Protocol::from_raw);
        let raw = net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol)?;
        options::attach_filter(&raw, FILTER)?;
        let udp = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
        sockopt::set_socket_broadcast(&udp, true)?;
        net::bind(&udp, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)))?;
        // Nobody reads it.
        let _ = sockopt::set_socket_recv_buffer_size(&udp, 1);
        Ok(Self { raw, udp, interface })
    }

    /// Sends to everybody from no address.
    pub(super) fn broadcast(&self, message: &[u8]) -> Result<(), Errno> {
        broadcast_on_link(&self.raw, self.interface, &packet(message))
    }

    /// Sends to a server, or to everybody, from the own address.
    pub(super) fn send(&self, message: &[u8], server: Ipv4Addr) -> Result<(), Errno> {
        net::sendto(&self.udp, message, SendFlags::NOSIGNAL, &SocketAddr::from((server, SERVER_PORT))).map(drop)
    }

    /// The next message; none when all are read.
    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        loop {
            match receive_captured(&self.raw, &mut buffer) {
                Ok(captured) if captured.interface == self.interface => {
                    if let Some(message) = content(buffer.get(..captured.length).unwrap_or_default()) {
                        return Some(message.to_vec());
                    }
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// A broadcast of IPv4 from no address.
fn packet(message: &[u8]) -> Vec<u8> {
    let length = |header: usize| u16::try_from(header + message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = alloc::vec![0x45, 0x10];
    packet.extend(length(IP_HEADER + UDP_HEADER));
    // Identification, fragments, hops, protocol, checksum.
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(Ipv4Addr::UNSPECIFIED.octets());
    packet.extend(Ipv4Addr::BROADCAST.octets());
    let checksum = pnet_packet::util::checksum(&packet, 5).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(CLIENT_PORT.to_be_bytes());
    packet.extend(SERVER_PORT.to_be_bytes());
    packet.extend(length(UDP_HEADER));
    // No checksum.
    packet.extend([0, 0]);
    packet.extend(message);
    packet
}

/// What a packet carries to the client's port.
fn content(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let datagram = packet.get(header..total.min(packet.len()))?;
    let to_us = packet.get(9) == Some(&UDP) && datagram.get(2..4)? == CLIENT_PORT.to_be_bytes();
    let from_server = datagram.get(..2)? == SERVER_PORT.to_be_bytes();
    if to_us && from_server { datagram.get(UDP_HEADER..) } else { None }
}

/// Classic packet filter: UDP to the client's port, no later fragment, from offset 0 of the IPv4 header.
const FILTER: &[Instruction] = &[
    (0x30, 0, 0, 9), // protocol
    (0x15, 0, 6, UDP as u32),
    (0x28, 0, 0, 6),      // fragment
    (0x45, 4, 0, 0x1fff), // offset not 0 -> refuse
    (0xb1, 0, 0, 0),      // length of the header
    (0x48, 0, 0, 2),      // destination port
    (0x15, 0, 1, CLIENT_PORT as u32),
    (0x06, 0, 0, 2048),
    (0x06, 0, 0, 0),
];

/// A socket for DHCPv6 on an interface.
pub(super) fn open_v6() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET6, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, CLIENT_PORT_V6)))?;
    Ok(socket)
}

/// Sends to all DHCPv6 servers on the link of an interface.
pub(super) fn send_v6(socket: &OwnedFd, interface: u32, message: &[u8]) -> Result<(), Errno> {
    let servers = SocketAddrV6::new(ALL_SERVERS, SERVER_PORT_V6, 0, interface);
    net::sendto(socket, message, SendFlags::NOSIGNAL, &servers).map(drop)
}

/// The next message; none when all are read.
pub(super) fn receive_v6(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = alloc::vec![0; 4096];
    loop {
        match net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                buffer.truncate(length);
                return Some(buffer);
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_sends_to_a_client_is_read() {
        let question = packet(b"hello");
        assert_eq!(content(&question), None);
        let mut answer = question;
        answer[20..24].copy_from_slice(&[0, 67, 0, 68]);
        answer.extend([0; 20]);
        assert_eq!(content(&answer), Some(&b"hello"[..]), "what pads a frame does not belong to it");
        for length in 0..answer.len() {
            let _ = content(&answer[..length]);
        }
        answer[0] = 0x4f;
        assert_eq!(content(&answer[..40]), None);
    }
}
