//! The agent's view of its network.
//!
//! * [`links`]: interfaces with their addresses
//! * [`routes`]: routes and neighbours
//! * [`resolv`]: the resolver's configuration

pub(crate) mod links;
mod resolv;
mod routes;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::protocol::{Facts, Failure};

/// Collects everything.
pub(crate) fn collect() -> Result<Facts, Failure> {
    let step = |what: &str| {
        let attempted = ["read ", what, " from the kernel"].concat();
        move |errno: Errno| Failure { attempted, errno: errno.raw_os_error() }
    };
    Ok(Facts {
        hostname: read_file("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string(),
        interfaces: links::collect().map_err(step("interfaces"))?,
        routes: routes::routes().map_err(step("routes"))?,
        neighbours: routes::neighbours().map_err(step("neighbours"))?,
        resolvers: resolv::parse(&read_file("/etc/resolv.conf").unwrap_or_default()),
        guest: None,
    })
}

/// The name servers that `/etc/resolv.conf` names.
pub(crate) fn name_servers() -> Vec<String> {
    resolv::parse(&read_file("/etc/resolv.conf").unwrap_or_default()).nameservers
}

/// A small text file.
pub(crate) fn read_file(path: &str) -> Result<String, Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match rustix::io::read(&file, &mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&content).into_owned()),
            length => content.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
}
