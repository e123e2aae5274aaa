//! From error numbers and ICMP messages to outcomes.

use alloc::string::ToString;

use rustix::io::Errno;

use crate::protocol::{Failure, IcmpError, Outcome, Transport, Unreachable};
use crate::sys::messages::QueuedError;

/// The agent could not do its part.
pub(crate) fn failed(attempted: &str, errno: Errno) -> Outcome {
    Outcome::AgentFailed(Failure { attempted: attempted.to_string(), errno: errno.raw_os_error() })
}

/// The kernel refused to connect or send, so nothing left this machine.
pub(crate) fn not_sent(errno: Errno) -> Outcome {
    match errno {
        // In this order: no route, `unreachable` route, `prohibit` route, `blackhole` route.
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL => {
            Outcome::NoRoute { errno: errno.raw_os_error() }
        }
        // A packet filter here said no.
        Errno::PERM => Outcome::Unreachable(Unreachable { icmp: None, errno: errno.raw_os_error() }),
        errno => failed("send the probe", errno),
    }
}

/// A socket reported an error after something was sent.
pub(crate) fn reported(transport: Transport, error: QueuedError) -> Outcome {
    match (error.icmp, Errno::from_raw_os_error(error.errno)) {
        (Some(message), _) => icmp_with_errno(transport, message, error.errno),
        (None, Errno::CONNREFUSED) => Outcome::Refused { icmp: None },
        (None, Errno::CONNRESET | Errno::PIPE) => Outcome::Reset,
        (None, Errno::TIMEDOUT) => Outcome::TimedOut,
        (None, _) => Outcome::Unreachable(Unreachable { icmp: None, errno: error.errno }),
    }
}

/// An ICMP error about a probe came in.
pub(crate) fn icmp(transport: Transport, message: IcmpError) -> Outcome {
    icmp_with_errno(transport, message, Errno::HOSTUNREACH.raw_os_error())
}

fn icmp_with_errno(transport: Transport, message: IcmpError, errno: i32) -> Outcome {
    let v6 = message.from.is_some_and(|from| from.is_ipv6());
    // Port unreachable: ICMP type 3 code 3, ICMPv6 type 1 code 4. An echo request has no port to refuse.
    let is_port = matches!((v6, message.kind, message.code), (false, 3, 3) | (true, 1, 4));
    if is_port && transport != Transport::Icmp {
        Outcome::Refused { icmp: Some(message) }
    } else {
        Outcome::Unreachable(Unreachable { icmp: Some(message), errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, code: u8, from: &str) -> IcmpError {
        IcmpError { kind, code, from: from.parse().ok() }
    }

    #[test]
    fn port_unreachable_is_refused_whatever_the_family() {
        for port_unreachable in [message(3, 3, "10.0.0.1"), message(1, 4, "fd00::1")] {
            assert_eq!(icmp(Transport::Udp, port_unreachable), Outcome::Refused { icmp: Some(port_unreachable) });
            let echo = icmp(Transport::Icmp, port_unreachable);
            assert!(matches!(echo, Outcome::Unreachable(_)), "an echo request has no port: {echo:?}");
        }
        for other in
            [message(3, 1, "10.0.0.1"), message(3, 4, "fd00::1"), message(1, 3, "fd00::1"), message(1, 4, "10.0.0.1")]
        {
            let outcome = icmp(Transport::Tcp, other);
            assert!(matches!(outcome, Outcome::Unreachable(Unreachable { icmp: Some(found), .. }) if found == other));
        }
    }

    #[test]
    fn what_never_left_is_told_from_what_came_back() {
        assert_eq!(not_sent(Errno::NETUNREACH), Outcome::NoRoute { errno: 101 });
        let back = QueuedError { errno: Errno::NETUNREACH.raw_os_error(), icmp: None };
        assert_eq!(reported(Transport::Tcp, back), Outcome::Unreachable(Unreachable { icmp: None, errno: 101 }));
        assert!(matches!(not_sent(Errno::ADDRNOTAVAIL), Outcome::AgentFailed(_)));
    }
}
