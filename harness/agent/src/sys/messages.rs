//! Datagrams together with what the kernel tells about them.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of, zeroed};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;

use super::check;
use crate::protocol::IcmpError;

/// Room for the ancillary data of any message received here, aligned as `cmsghdr` is.
type Control = [u64; 32];

/// What a socket's error queue had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedError {
    /// The error as the socket would report it.
    pub(crate) errno: i32,
    /// The ICMP message that it came from, if it did.
    pub(crate) icmp: Option<IcmpError>,
}

/// A datagram and where on this machine it was sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    /// Bytes received.
    pub(crate) length: usize,
    /// Who sent it.
    pub(crate) source: SocketAddr,
    /// The local address that it was sent to.
    pub(crate) destination: Option<IpAddr>,
}

/// A captured packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Captured {
    /// Bytes of it that fitted the buffer.
    pub(crate) length: usize,
    /// Index of the interface that it came in by.
    pub(crate) interface: u32,
    /// Addressed to this machine by its link-layer address, not merely passing.
    pub(crate) to_us: bool,
}

/// Takes the oldest error off a socket's error queue. Needs `IP_RECVERR` or `IPV6_RECVERR`.
///
/// # Errors
/// EAGAIN when the queue is empty.
pub(crate) fn receive_error(socket: impl AsFd) -> Result<QueuedError, Errno> {
    let mut payload = [0_u8; 64];
    let mut found = None;
    receive(socket, &mut payload, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT, |level, kind, data| {
        let is_error = (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        if let (true, Some(error)) = (is_error, read::<libc::sock_extended_err>(data)) {
            let from =
                data.get(size_of::<libc::sock_extended_err>()..).and_then(read_address).map(|address| address.ip());
            // `linux/errqueue.h`: SO_EE_ORIGIN_ICMP 2, SO_EE_ORIGIN_ICMP6 3.
            let icmp = matches!(error.ee_origin, 2 | 3).then_some(IcmpError {
                kind: error.ee_type,
                code: error.ee_code,
                from,
            });
            found = Some(QueuedError { errno: error.ee_errno.cast_signed(), icmp });
        }
    })?;
    found.ok_or(Errno::AGAIN)
}

/// Receives a datagram with the local address that it was sent to. Needs `IP_PKTINFO` or `IPV6_RECVPKTINFO`.
///
/// # Errors
/// EAGAIN when there is none.
pub(crate) fn receive_datagram(socket: impl AsFd, payload: &mut [u8]) -> Result<Datagram, Errno> {
    let mut destination = None;
    let (length, source) = receive(socket, payload, libc::MSG_DONTWAIT, |level, kind, data| {
        if (level, kind) == (libc::IPPROTO_IP, libc::IP_PKTINFO) {
            destination = read::<libc::in_pktinfo>(data)
                .map(|info| IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr))));
        } else if (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
            destination =
                read::<libc::in6_pktinfo>(data).map(|info| IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
        }
    })?;
    Ok(Datagram { length, source: source.ok_or(Errno::INVAL)?, destination })
}

/// Sends a datagram from the given local address, which an answer needs where the machine has several.
pub(crate) fn send_datagram(
    socket: impl AsFd,
    payload: &[u8],
    to: SocketAddr,
    from: Option<IpAddr>,
) -> Result<(), Errno> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let name_length = write_address(&mut name, to);
    let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    let mut control: Control = [0; 32];
    // SAFETY: a message header of zeros is a valid, empty one.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name_length;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    match from {
        Some(IpAddr::V4(address)) => {
            let source = libc::in_addr { s_addr: address.to_bits().to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
            put_control(&mut header, &mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(address)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                ipi6_ifindex: match to {
                    SocketAddr::V6(to) => to.scope_id(),
                    SocketAddr::V4(_) => 0,
                },
            };
            put_control(&mut header, &mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    // SAFETY: every pointer in the header is to a local that lives until the call returns; the kernel only reads.
    let returned = unsafe {
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    check(returned).map(drop)
}

/// Receives a message with its sender and the hops that it had left. Needs `IPV6_RECVHOPLIMIT`.
///
/// # Errors
/// EAGAIN when there is none.
pub(crate) fn receive_with_hops(
    socket: impl AsFd,
    payload: &mut [u8],
) -> Result<(usize, Option<SocketAddr>, Option<i32>), Errno> {
    let mut hops = None;
    let (length, source) = receive(socket, payload, libc::MSG_DONTWAIT, |level, kind, data| {
        if (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
            hops = read::<libc::c_int>(data);
        }
    })?;
    Ok((length, source, hops))
}

/// Sends a packet of IPv4 to everybody on the link of an interface, by a capture socket.
pub(crate) fn broadcast_on_link(socket: impl AsFd, interface: u32, packet: &[u8]) -> Result<(), Errno> {
    // SAFETY: a link-layer address of zeros is a valid one.
    let mut link: libc::sockaddr_ll = unsafe { zeroed() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    link.sll_ifindex = interface.cast_signed();
    link.sll_halen = 6;
    link.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    // SAFETY: both pointers are valid for the lengths given; the kernel only reads.
    let returned = unsafe {
        libc::sendto(
            socket.as_fd().as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            (&raw const link).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(returned).map(drop)
}

/// Receives from a capture socket.
///
/// # Errors
/// EAGAIN when there is nothing.
pub(crate) fn receive_captured(socket: impl AsFd, packet: &mut [u8]) -> Result<Captured, Errno> {
    // SAFETY: a link-layer address of zeros is a valid one.
    let mut link: libc::sockaddr_ll = unsafe { zeroed() };
    let mut link_length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the given lengths to `packet` and `link`, for which any bytes are valid.
    let returned = unsafe {
        libc::recvfrom(
            socket.as_fd().as_raw_fd(),
            packet.as_mut_ptr().cast(),
            packet.len(),
            libc::MSG_DONTWAIT,
            (&raw mut link).cast(),
            &raw mut link_length,
        )
    };
    Ok(Captured {
        length: check(returned)?,
        interface: link.sll_ifindex.cast_unsigned(),
        to_us: link.sll_pkttype == libc::PACKET_HOST,
    })
}

/// Receives a message and shows each piece of its ancillary data: level, type, data.
fn receive(
    socket: impl AsFd,
    payload: &mut [u8],
    flags: i32,
    mut ancillary: impl FnMut(i32, i32, &[u8]),
) -> Result<(usize, Option<SocketAddr>), Errno> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut control: Control = [0; 32];
    // SAFETY: a message header of zeros is a valid, empty one.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: every pointer in the header is to a local or to `payload`, with its true length.
    let length = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) })?;
    // SAFETY: the header is as `recvmsg` left it, over `control`, which it filled; the macros stay within
    // `msg_controllen`, and `cmsg_len` counts the header and the data behind it.
    unsafe {
        let mut piece = libc::CMSG_FIRSTHDR(&raw const header);
        while !piece.is_null() {
            let data = libc::CMSG_DATA(piece);
            let data_length = ((*piece).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            ancillary((*piece).cmsg_level, (*piece).cmsg_type, core::slice::from_raw_parts(data, data_length));
            piece = libc::CMSG_NXTHDR(&raw const header, piece);
        }
    }
    // SAFETY: `name` was zeroed, so all of it is initialized.
    let bytes = unsafe { core::slice::from_raw_parts(name.as_ptr().cast::<u8>(), size_of::<libc::sockaddr_storage>()) };
    Ok((length, read_address(bytes)))
}

/// Puts the one piece of ancillary data that a message sent here has.
fn put_control<T: Copy>(header: &mut libc::msghdr, control: &mut Control, level: i32, kind: i32, value: T) {
    const { assert!(size_of::<T>() <= 64) };
    header.msg_control = control.as_mut_ptr().cast::<c_void>();
    // SAFETY: `Control` has room for a header and 64 bytes of data, is aligned for both, and outlives the header's use.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<T>() as u32) as _;
        let piece = libc::CMSG_FIRSTHDR(&raw const *header);
        (*piece).cmsg_level = level;
        (*piece).cmsg_type = kind;
        (*piece).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(piece).cast::<T>().write_unaligned(value);
    }
}

/// A C structure of plain integers at the start of `data`, if it is long enough.
fn read<T: Copy>(data: &[u8]) -> Option<T> {
    // SAFETY: used with C structures of integers only, for which any bytes are valid; the length is checked.
    (data.len() >= size_of::<T>()).then(|| unsafe { data.as_ptr().cast::<T>().read_unaligned() })
}

/// The socket address at the start of `data`, if it is one of IP.
fn read_address(data: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(read::<libc::sa_family_t>(data)?);
    if family == libc::AF_INET {
        let v4 = read::<libc::sockaddr_in>(data)?;
        let address = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
        Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
    } else if family == libc::AF_INET6 {
        let v6 = read::<libc::sockaddr_in6>(data)?;
        let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        Some(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
    } else {
        None
    }
}

/// Writes a socket address; says its length.
fn write_address(storage: &mut MaybeUninit<libc::sockaddr_storage>, address: SocketAddr) -> libc::socklen_t {
    // SAFETY: the storage is large enough and aligned for either structure.
    unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let name = storage.as_mut_ptr().cast::<libc::sockaddr_in>();
                (*name).sin_family = libc::AF_INET as libc::sa_family_t;
                (*name).sin_port = v4.port().to_be();
                (*name).sin_addr.s_addr = v4.ip().to_bits().to_be();
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                let name = storage.as_mut_ptr().cast::<libc::sockaddr_in6>();
                (*name).sin6_family = libc::AF_INET6 as libc::sa_family_t;
                (*name).sin6_port = v6.port().to_be();
                (*name).sin6_addr.s6_addr = v6.ip().octets();
                (*name).sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}
