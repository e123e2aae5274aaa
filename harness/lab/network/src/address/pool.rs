//! Who has which address of a subnet. Addresses go round: a freed one is given again last.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::subnet::{from_number, to_number};

/// Why an address was not given; the words are OVN-Kubernetes'.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("provided IP is already allocated")]
    Taken,
    #[error("the provided IP {0} is not in the valid range: {1}")]
    Outside(IpAddr, IpNet),
    #[error("the provided IP {0} is reserved for the network's own use")]
    Reserved(IpAddr),
    #[error("subnet address pool exhausted")]
    Full,
}

/// The addresses of one subnet.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    subnet: IpNet,
    /// Never given, not even on request: gateway, management port, infrastructure.
    reserved: Vec<IpNet>,
    /// Not given unless requested.
    on_request: Vec<IpNet>,
    owners: HashMap<IpAddr, String>,
    last: u128,
}

impl Pool {
    pub(crate) fn new(subnet: IpNet, reserved: Vec<IpNet>, on_request: Vec<IpNet>) -> Self {
        let subnet = subnet.trunc();
        Self { subnet, reserved, on_request, owners: HashMap::new(), last: to_number(subnet.network()) }
    }

    pub(crate) fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self, owner: &str) -> Result<IpAddr, PoolError> {
        // A subnet is walked once at most; ranges that are not given are jumped over, however large.
        let first = to_number(self.subnet.network()) + 1;
        let end = to_number(self.subnet.broadcast());
        // The last address of an IPv6 subnet is an address like any other, but OVN-Kubernetes leaves it out too.
        let end = if self.subnet.prefix_len() >= self.subnet.max_prefix_len() - 1 { end + 1 } else { end };
        for (mut from, to) in [(self.last.max(first - 1) + 1, end), (first, (self.last + 1).min(end))] {
            while from < to {
                let address = from_number(from, self.subnet.network());
                let blocking = self.reserved.iter().chain(&self.on_request).find(|range| range.contains(&address));
                if let Some(range) = blocking {
                    from = to_number(range.broadcast()) + 1;
                    continue;
                }
                if let Entry::Vacant(free) = self.owners.entry(address) {
                    free.insert(owner.to_owned());
                    self.last = from;
                    return Ok(address);
                }
                from += 1;
            }
        }
        Err(PoolError::Full)
    }

    /// What `owner` has.
    pub(crate) fn of(&self, owner: &str) -> Option<IpAddr> {
        self.owners.iter().find(|(_, other)| *other == owner).map(|(address, _)| *address)
    }

    /// This very address. An owner may ask again for what it has; whether it had it not yet.
    pub(crate) fn claim(&mut self, owner: &str, address: IpAddr) -> Result<bool, PoolError> {
        if !self.subnet.contains(&address) {
            return Err(PoolError::Outside(address, self.subnet));
        }
        if self.reserved.iter().any(|range| range.contains(&address)) {
            return Err(PoolError::Reserved(address));
        }
        match self.owners.get(&address) {
            Some(other) if other != owner => Err(PoolError::Taken),
            Some(_) => Ok(false),
            None => {
                self.owners.insert(address, owner.to_owned());
                Ok(true)
            }
        }
    }

    /// Takes back one address, whoever has it.
    pub(crate) fn free(&mut self, address: IpAddr) {
        self.owners.remove(&address);
    }

    /// Takes back what `owner` has.
    pub(crate) fn release(&mut self, owner: &str) {
        self.owners.retain(|_, other| other != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn gives_neither_reserved_nor_on_request() {
        let mut pool =
            Pool::new(net("10.0.0.0/29"), vec![net("10.0.0.1/32"), net("10.0.0.2/32")], vec![net("10.0.0.4/31")]);
        assert_eq!(pool.allocate("a").unwrap(), ip("10.0.0.3"));
        assert_eq!(pool.allocate("b").unwrap(), ip("10.0.0.6"));
        assert_eq!(pool.allocate("c"), Err(PoolError::Full));
        assert_eq!(pool.claim("c", ip("10.0.0.4")), Ok(true));
        assert_eq!(pool.claim("d", ip("10.0.0.4")), Err(PoolError::Taken));
        assert_eq!(pool.claim("c", ip("10.0.0.4")), Ok(false));
        assert_eq!((pool.of("c"), pool.of("d")), (Some(ip("10.0.0.4")), None));
        assert_eq!(pool.claim("d", ip("10.0.0.1")), Err(PoolError::Reserved(ip("10.0.0.1"))));
        assert!(matches!(pool.claim("d", ip("10.0.1.1")), Err(PoolError::Outside(..))));
    }

    #[test]
    fn freed_addresses_come_last() {
        let mut pool = Pool::new(net("10.0.0.0/29"), Vec::new(), Vec::new());
        assert_eq!(pool.allocate("a").unwrap(), ip("10.0.0.1"));
        pool.release("a");
        assert_eq!(pool.allocate("b").unwrap(), ip("10.0.0.2"));
        for owner in ["c", "d", "e", "f"] {
            pool.allocate(owner).unwrap();
        }
        assert_eq!(pool.allocate("g").unwrap(), ip("10.0.0.1"));
    }

    #[test]
    fn large_reservations_cost_nothing() {
        let mut pool = Pool::new(net("fd00::/64"), vec![net("fd00::/80")], Vec::new());
        assert_eq!(pool.allocate("a").unwrap(), ip("fd00::1:0:0:0"));
    }
}
