//! When a proxy that the environment names is not to be used: `NO_PROXY`, and this machine itself.
//!
//! kubectl goes by both; the client library knows neither unless it is built to speak to proxies, which it is not here.

use std::net::IpAddr;

use ipnet::IpNet;
use kube::Config;

/// Forgets a proxy where the API server is to be reached without one.
pub(crate) fn forget_where_not_meant(config: &mut Config) {
    let no_proxy = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if is_this_machine(&host) || is_exempt(&host, config.cluster_url.port_u16(), &no_proxy) {
        config.proxy_url = None;
    }
}

/// Whether a host is this machine's loopback, where the lab serves its API.
fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a list of hosts, domains, addresses and subnets, as in `NO_PROXY`, has this host.
fn is_exempt(host: &str, port: Option<u16>, list: &str) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            let subnet = entry.parse::<IpNet>().is_ok_and(|subnet| subnet.contains(&address));
            return subnet || entry.trim_matches(['[', ']']).parse() == Ok(address);
        }
        let (entry, wanted) = match entry.rsplit_once(':') {
            Some((entry, wanted)) => (entry, wanted.parse().ok()),
            None => (entry, None),
        };
        let domain = entry.trim_start_matches("*.").trim_start_matches('.').to_lowercase();
        let host = host.to_lowercase();
        let within = host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        within && (wanted.is_none() || wanted == port)
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://127.0.0.1:6443", false)]
    #[case("https://localhost:6443", false)]
    #[case("https://[::1]:6443", false)]
    #[case("https://192.0.2.1:6443", true)]
    #[case("https://api.example.org", true)]
    fn no_proxy_leads_to_loopback(#[case] server: &str, #[case] kept: bool) {
        let mut config = Config::new(server.parse().unwrap());
        config.proxy_url = Some("http://proxy.example.org:3128".parse().unwrap());
        forget_where_not_meant(&mut config);
        assert_eq!(config.proxy_url.is_some(), kept);
    }

    #[rstest]
    #[case("api.example.org", "example.org", true)]
    #[case("api.example.org", ".example.org, x", true)]
    #[case("api.example.org", "*.Example.org", true)]
    #[case("api.example.org", "example.org:6443", true)]
    #[case("api.example.org", "example.org:443", false)]
    #[case("badexample.org", "example.org", false)]
    #[case("api.example.org", "", false)]
    #[case("api.example.org", "*", true)]
    #[case("10.1.2.3", "10.0.0.0/8", true)]
    #[case("10.1.2.3", "10.1.2.3", true)]
    #[case("10.1.2.3", "10.1.2.4,192.168.0.0/16", false)]
    #[case("fd00::1", "fd00::/8", true)]
    fn hosts_of_a_list(#[case] host: &str, #[case] list: &str, #[case] expected: bool) {
        assert_eq!(is_exempt(host, Some(6443), list), expected);
    }
}
