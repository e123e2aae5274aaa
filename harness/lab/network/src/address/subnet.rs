//! Cutting ranges into node subnets, and the nth address of a subnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The address at `offset` from the network's own, if inside.
pub(crate) fn nth(subnet: IpNet, offset: u128) -> Option<IpAddr> {
    let address = from_number(to_number(subnet.network()).checked_add(offset)?, subnet.network());
    subnet.contains(&address).then_some(address)
}

/// The `index`th subnet of `length` in `range`.
pub(crate) fn cut(range: IpNet, length: u8, index: u128) -> Option<IpNet> {
    let bits = range.max_prefix_len().checked_sub(length)?;
    let count = length.checked_sub(range.prefix_len())?;
    if count < 128 && index >= 1_u128.checked_shl(u32::from(count))? {
        return None;
    }
    let offset = index.checked_shl(u32::from(bits))?;
    IpNet::new(nth(range, offset)?, length).ok()
}

/// How many subnets of `length` a range holds.
pub(crate) fn pieces(range: IpNet, length: u8) -> u128 {
    length.checked_sub(range.prefix_len()).and_then(|count| 1_u128.checked_shl(u32::from(count))).unwrap_or(0)
}

pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

pub(crate) fn from_number(number: u128, family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts() {
        let four: IpNet = "103.103.0.0/16".parse().unwrap();
        assert_eq!(cut(four, 24, 2).unwrap().to_string(), "103.103.2.0/24");
        let six: IpNet = "2014:100:200::/60".parse().unwrap();
        assert_eq!(cut(six, 64, 3).unwrap().to_string(), "2014:100:200:3::/64");
        let small: IpNet = "10.0.0.0/24".parse().unwrap();
        assert_eq!(pieces(small, 25), 2);
        assert!(cut(small, 25, 2).is_none());
        assert!(cut(small, 23, 0).is_none());
        assert_eq!(nth(small, 1).unwrap().to_string(), "10.0.0.1");
        assert!(nth(small, 256).is_none());
    }
}
