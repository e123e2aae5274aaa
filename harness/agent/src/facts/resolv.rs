//! `/etc/resolv.conf`.

use alloc::string::ToString;

use crate::protocol::Resolvers;

/// Reads it as the resolver does: the last `search` wins, options add up.
pub(super) fn parse(text: &str) -> Resolvers {
    let mut resolvers = Resolvers::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(ToString::to_string);
        match words.next().as_deref() {
            Some("nameserver") => resolvers.nameservers.extend(words.next()),
            Some("search" | "domain") => resolvers.search = words.collect(),
            Some("options") => resolvers.options.extend(words),
            _ => {}
        }
    }
    resolvers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_file_is_read() {
        let resolvers = parse(
            "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00:10:96::a\n# nameserver 1.1.1.1\noptions ndots:5\n",
        );
        assert_eq!(resolvers.nameservers, ["10.96.0.10", "fd00:10:96::a"]);
        assert_eq!(resolvers.search, ["ns.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!(resolvers.options, ["ndots:5"]);
    }
}
