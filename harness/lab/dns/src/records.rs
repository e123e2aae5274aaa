//! The file of records. One line each, words separated by blanks, names absolute and in lower case:
//!
//! ```text
//! cluster.local. ZONE                      answered for; names in it that are not listed do not exist
//! blue.svc.cluster.local. NAME             exists, though it has no records
//! blue.pod.cluster.local. PODS             10-0-0-1.blue.pod.cluster.local. means what it says
//! web.blue.svc.cluster.local. A 10.96.3.4
//! _http._tcp.web.blue.svc.cluster.local. SRV 80 web.blue.svc.cluster.local.
//! old.blue.svc.cluster.local. CNAME elsewhere.example.
//! 4.3.96.10.in-addr.arpa. PTR web.blue.svc.cluster.local.
//! dns-version.cluster.local. TXT 1.1.0
//! ```

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData};

/// Everything that is answered for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    /// Tells a file from its successor.
    pub(crate) serial: u32,
    zones: Vec<Name>,
    data: HashMap<Name, Vec<RData>>,
    /// Names that exist, those above a listed name included.
    names: HashSet<Name>,
    pods: HashSet<Name>,
}

impl Records {
    /// Reads a file's text; a line that cannot be read is an error with its number, and nothing is taken.
    pub(crate) fn read(text: &str, serial: u32) -> Result<Self, String> {
        let mut records = Self { serial, ..Self::default() };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            records.line(line).map_err(|problem| format!("line {}: {problem}: {line:?}", number + 1))?;
        }
        Ok(records)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = name(words.first().copied().unwrap_or_default())?;
        let data = match words.get(1..).unwrap_or_default() {
            ["ZONE"] => {
                self.zones.push(name);
                return Ok(());
            }
            ["PODS"] => {
                self.exists(&name);
                self.pods.insert(name);
                return Ok(());
            }
            ["NAME"] => {
                self.exists(&name);
                return Ok(());
            }
            ["A" | "AAAA", address] => match address.parse().map_err(|_| "no address".to_owned())? {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            },
            ["SRV", port, target] => {
                let port = port.parse().map_err(|_| "no port".to_owned())?;
                // CoreDNS' priority and weight.
                RData::SRV(SRV::new(0, 100, port, self::name(target)?))
            }
            ["CNAME", target] => RData::CNAME(CNAME(self::name(target)?)),
            ["PTR", target] => RData::PTR(PTR(self::name(target)?)),
            ["TXT", text] => RData::TXT(TXT::new(vec![(*text).to_owned()])),
            _ => return Err("unknown kind of record".to_owned()),
        };
        self.exists(&name);
        self.data.entry(name).or_default().push(data);
        Ok(())
    }

    fn exists(&mut self, name: &Name) {
        let mut name = name.clone();
        while !name.is_root() && self.names.insert(name.clone()) {
            name = name.base_name();
        }
    }

    /// The zone that a name is in: the longest.
    pub(crate) fn zone(&self, name: &Name) -> Option<&Name> {
        self.zones.iter().filter(|zone| zone.zone_of(name)).max_by_key(|zone| zone.num_labels())
    }

    /// A name's records.
    pub(crate) fn of(&self, name: &Name) -> &[RData] {
        self.data.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a name exists, with or without records.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.names.contains(name) || self.zones.contains(name)
    }

    /// The address that a pod's name consists of: CoreDNS does not ask whether there is such a pod.
    pub(crate) fn pod(&self, name: &Name) -> Option<IpAddr> {
        if !self.pods.contains(&name.base_name()) {
            return None;
        }
        let label = std::str::from_utf8(name.iter().next()?).ok()?;
        label.replace('-', ".").parse().or_else(|_| label.replace('-', ":").parse()).ok()
    }
}

fn name(text: &str) -> Result<Name, String> {
    let name = Name::from_str(text).map_err(|error| format!("{text:?} is no name: {error}"))?;
    if name.is_fqdn() { Ok(name.to_lowercase()) } else { Err(format!("{text:?} does not end with a dot")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        super::name(text).unwrap()
    }

    #[test]
    fn lines_become_records() {
        let records = Records::read(
            "cluster.local. ZONE\n\nblue.pod.cluster.local. PODS\nWeb.blue.svc.cluster.local. A 10.96.0.7\n\
             web.blue.svc.cluster.local. AAAA fd00::7\n",
            1,
        )
        .unwrap();
        assert_eq!(records.of(&name("web.blue.svc.cluster.local.")).len(), 2);
        assert!(records.has(&name("blue.svc.cluster.local.")) && records.has(&name("cluster.local.")));
        assert!(!records.has(&name("red.svc.cluster.local.")));
        assert_eq!(records.zone(&name("a.b.cluster.local.")), Some(&name("cluster.local.")));
        assert_eq!(records.zone(&name("cluster.example.")), None);
        assert_eq!(records.pod(&name("10-244-1-5.blue.pod.cluster.local.")), Some("10.244.1.5".parse().unwrap()));
        assert_eq!(records.pod(&name("fd00-10--5.blue.pod.cluster.local.")), Some("fd00:10::5".parse().unwrap()));
        assert_eq!(records.pod(&name("10-244-1-5.red.pod.cluster.local.")), None);
        assert_eq!(records.pod(&name("x.blue.pod.cluster.local.")), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in ["a.b. A", "a.b. A x", "a.b A 1.2.3.4", "a.b. MX 1 c.", "a..b. NAME", "a. SRV 70000 b."] {
            let problem = Records::read(&format!("ok. ZONE\n{bad}"), 1).unwrap_err();
            assert!(problem.starts_with("line 2: "), "{problem}");
        }
    }
}
