//! Listeners with identity banners: one socket per family, transport and port.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use crate::clock::wall_us;
use crate::flow::mirror::Mirrors;
use crate::probe::payload;
use crate::protocol::{Arrival, Banner, Failure, Listen, Transport};
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::{Key, Slab};
use crate::sys::messages::{receive_datagram, send_datagram};
use crate::sys::options;

/// Connections that may wait for being accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Datagrams that may wait for being answered, bytes.
const QUEUE: usize = 1 << 20;

/// Connections or datagrams served before others get their turn.
const TURN: usize = 256;

/// All listeners.
pub(crate) struct Listeners {
    sockets: Slab<Listener>,
    ports: BTreeMap<(Transport, u16), Vec<Key>>,
    mirrors: Mirrors,
}

struct Listener {
    socket: OwnedFd,
    transport: Transport,
    port: u16,
    v6: bool,
    identity: Rc<str>,
    echo: bool,
}

impl Listeners {
    pub(crate) const fn new() -> Self {
        Self { sockets: Slab::new(), ports: BTreeMap::new(), mirrors: Mirrors::new() }
    }

    /// Opens a port for both families, or changes who it says it is and whether it echoes.
    pub(crate) fn open(&mut self, reactor: &Reactor, listen: &Listen) -> Result<(), Failure> {
        let identity: Rc<str> = listen.identity.as_str().into();
        let port = (listen.transport, listen.port);
        if let Some(keys) = self.ports.get(&port) {
            for key in keys {
                if let Some(listener) = self.sockets.get_mut(*key) {
                    listener.identity = Rc::clone(&identity);
                    listener.echo = listen.echo;
                }
            }
            return Ok(());
        }
        let mut keys = Vec::new();
        for v6 in [false, true] {
            let socket = match bind(listen.transport, v6, listen.port) {
                Ok(socket) => socket,
                // A machine without this family: its addresses cannot be probed either.
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => continue,
                Err(errno) => {
                    self.close(&keys);
                    let family = if v6 { "IPv6" } else { "IPv4" };
                    return Err(failure(
                        &format!("listen on {family} {} port {}", listen.transport, listen.port),
                        errno,
                    ));
                }
            };
            let (transport, port, identity) = (listen.transport, listen.port, Rc::clone(&identity));
            let key = self.sockets.insert(Listener { socket, transport, port, v6, identity, echo: listen.echo });
            keys.push(key);
            if let Some(listener) = self.sockets.get_mut(key)
                && let Err(errno) = reactor.watch(&listener.socket, Token::new(Kind::Listener, key), Ready::IN)
            {
                self.close(&keys);
                return Err(failure("watch a listener", errno));
            }
        }
        if keys.is_empty() {
            return Err(failure("listen: neither IPv4 nor IPv6 is there", Errno::AFNOSUPPORT));
        }
        self.ports.insert(port, keys);
        Ok(())
    }

    /// Closes a port and the connections that it echoes.
    pub(crate) fn shut(&mut self, transport: Transport, port: u16) {
        if let Some(keys) = self.ports.remove(&(transport, port)) {
            self.close(&keys);
        }
        if transport == Transport::Tcp {
            self.mirrors.close_port(port);
        }
    }

    fn close(&mut self, keys: &[Key]) {
        for key in keys {
            self.sockets.remove(*key);
        }
    }

    /// Serves whoever came; `saw` is told of each.
    pub(crate) fn ready(&mut self, reactor: &Reactor, key: Key, saw: &mut dyn FnMut(Arrival)) {
        let Some(listener) = self.sockets.get_mut(key) else { return };
        for _ in 0..TURN {
            let served = match listener.transport {
                Transport::Udp => listener.answer(saw),
                Transport::Tcp | Transport::Icmp => listener.accept(reactor, &mut self.mirrors, saw),
            };
            match served {
                Ok(()) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    /// A connection that is echoed became ready.
    pub(crate) fn mirror_ready(&mut self, reactor: &Reactor, key: Key) {
        self.mirrors.ready(reactor, key);
    }
}

impl Listener {
    fn accept(&self, reactor: &Reactor, mirrors: &mut Mirrors, saw: &mut dyn FnMut(Arrival)) -> Result<(), Errno> {
        let (socket, peer) = net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else { return Ok(()) };
        let destination = net::getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
        if let Some(destination) = destination {
            saw(arrival(Transport::Tcp, peer, destination, None));
        }
        if self.echo {
            mirrors.take(reactor, self.port, socket, &self.banner(peer, None));
            return Ok(());
        }
        // A fresh connection's send buffer has room for the line. The client may be gone: that is its affair.
        let _ = net::send(&socket, &self.banner(peer, None), SendFlags::NOSIGNAL);
        let _ = net::shutdown(&socket, Shutdown::Write);
        Ok(())
    }

    fn answer(&self, saw: &mut dyn FnMut(Arrival)) -> Result<(), Errno> {
        let mut buffer = [0; 2048];
        let datagram = receive_datagram(&self.socket, &mut buffer)?;
        let content = buffer.get(..datagram.length).unwrap_or_default();
        let frame = payload::frame_nonce(content);
        let nonce = frame.or_else(|| payload::nonce(content));
        let unspecified = if self.v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let destination = SocketAddr::new(datagram.destination.unwrap_or(unspecified), self.port);
        if frame.is_none() {
            saw(arrival(Transport::Udp, datagram.source, destination, nonce));
        }
        // A lost answer looks like a lost question to the client, which asks again.
        let _ =
            send_datagram(&self.socket, &self.banner(datagram.source, nonce), datagram.source, datagram.destination);
        Ok(())
    }

    fn banner(&self, peer: SocketAddr, nonce: Option<u64>) -> Vec<u8> {
        let banner = Banner { identity: String::from(&*self.identity), peer, nonce };
        let mut line = serde_json::to_vec(&banner).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

fn arrival(transport: Transport, source: SocketAddr, destination: SocketAddr, nonce: Option<u64>) -> Arrival {
    Arrival { at_us: wall_us(), transport, source, destination, interface: 0, nonce }
}

fn failure(attempted: &str, errno: Errno) -> Failure {
    Failure { attempted: attempted.into(), errno: errno.raw_os_error() }
}

fn bind(transport: Transport, v6: bool, port: u16) -> Result<OwnedFd, Errno> {
    let (family, any) = if v6 {
        (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    } else {
        (AddressFamily::INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    };
    let (kind, protocol) = match transport {
        Transport::Tcp => (SocketType::STREAM, ipproto::TCP),
        Transport::Udp => (SocketType::DGRAM, ipproto::UDP),
        // The kernel answers echo requests by itself.
        Transport::Icmp => return Err(Errno::PROTONOSUPPORT),
    };
    let socket = net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(protocol))?;
    if v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match transport {
        Transport::Tcp => sockopt::set_socket_reuseaddr(&socket, true)?,
        _ if v6 => options::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
        _ => options::set_int(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
    }
    net::bind(&socket, &SocketAddr::new(any, port))?;
    if transport == Transport::Tcp {
        net::listen(&socket, BACKLOG)?;
    } else {
        options::enlarge_queue(&socket, QUEUE);
    }
    Ok(socket)
}
