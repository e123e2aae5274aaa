//! MAC addresses as OVN-Kubernetes forms them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A MAC address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// `0a:58:` and the four octets of an IPv4 address; for an IPv6 address four octets of its text's hash.
    pub(crate) fn of(address: IpAddr) -> Self {
        let tail = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => {
                let hash = Sha256::digest(address.to_string().as_bytes());
                [hash[0], hash[1], hash[2], hash[3]]
            }
        };
        Self([0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]])
    }

    /// Of the first address, IPv4 before IPv6.
    pub(crate) fn of_first(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        addresses.into_iter().min_by_key(IpAddr::is_ipv6).map(Self::of)
    }

    /// The link-local address that follows from it (EUI-64).
    pub(crate) fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets: Option<Vec<u8>> = text.split([':', '-']).map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a MAC address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_address() {
        assert_eq!(Mac::of("203.203.2.5".parse().unwrap()).to_string(), "0a:58:cb:cb:02:05");
        assert_eq!(
            Mac::of_first(["fd00::5".parse().unwrap(), "10.0.0.1".parse().unwrap()]).unwrap().to_string(),
            "0a:58:0a:00:00:01"
        );
        let six = Mac::of("fd00::5".parse().unwrap()).to_string();
        assert!(six.starts_with("0a:58:"), "{six}");
    }

    #[test]
    fn parses_and_prints() {
        assert_eq!("02:03:04:05:06:07".parse::<Mac>().unwrap().to_string(), "02:03:04:05:06:07");
        assert!("02:03:04".parse::<Mac>().is_err());
        assert_eq!(Mac([0x0a, 0x58, 0x0a, 0, 0, 1]).link_local().to_string(), "fe80::858:aff:fe00:1");
    }
}
