//! Interfaces with their addresses.

use alloc::string::String;
use alloc::vec::Vec;

use rustix::io::Errno;

use crate::netlink::{address, dump, mac, u32_at};
use crate::protocol::{Interface, InterfaceAddress};

// `linux/rtnetlink.h`, `linux/if_link.h`, `linux/if_addr.h`.
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_OPERSTATE: u16 = 16;
const IFF_UP: u32 = 1;
const OPERSTATE_UNKNOWN: u8 = 0;
const OPERSTATE_UP: u8 = 6;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_OPTIMISTIC: u32 = 0x04;

pub(crate) fn collect() -> Result<Vec<Interface>, Errno> {
    let mut interfaces = Vec::new();
    dump(RTM_GETLINK, 0, IFINFOMSG, |link, attributes| {
        // struct ifinfomsg: family, pad, type, index, flags, change.
        let (Some(index), Some(flags)) = (u32_at(link, 4), u32_at(link, 8)) else { return };
        let up = flags & IFF_UP != 0;
        let mut interface = Interface { index, up, ..Interface::default() };
        for (kind, value) in attributes {
            match kind {
                IFLA_IFNAME => interface.name = text(value),
                IFLA_MTU => interface.mtu = u32_at(value, 0).unwrap_or(0),
                IFLA_ADDRESS => interface.mac = mac(value),
                IFLA_OPERSTATE => {
                    interface.running = up && matches!(value.first(), Some(&(OPERSTATE_UP | OPERSTATE_UNKNOWN)));
                }
                _ => {}
            }
        }
        interfaces.push(interface);
    })?;
    dump(RTM_GETADDR, 0, IFADDRMSG, |header, attributes| {
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let (Some(&prefix), Some(&low_flags), Some(index)) = (header.get(1), header.get(2), u32_at(header, 4)) else {
            return;
        };
        let (mut found, mut local, mut flags) = (None, None, u32::from(low_flags));
        for (kind, value) in attributes {
            match kind {
                IFA_ADDRESS => found = address(value),
                IFA_LOCAL => local = address(value),
                IFA_FLAGS => flags = u32_at(value, 0).unwrap_or(flags),
                _ => {}
            }
        }
        // On a point-to-point interface IFA_ADDRESS is the other end.
        let interface = interfaces.iter_mut().find(|interface| interface.index == index);
        if let (Some(interface), Some(address)) = (interface, local.or(found)) {
            let tentative = flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0 && flags & IFA_F_OPTIMISTIC == 0;
            interface.addresses.push(InterfaceAddress { address, prefix, tentative });
        }
    })?;
    Ok(interfaces)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
