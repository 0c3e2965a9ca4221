//! Where clients are awaited, and the administrator.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Check, Listener, keys, network, quoted};
use crate::{
    config::{raw::Raw, url::Url},
    net::Endpoint,
};

impl Check<'_> {
    pub(super) fn listeners(&mut self, raw: &Raw) -> Vec<Listener> {
        if raw.listen.is_empty() {
            self.refuse::<()>("listen", "found an empty list", &format!("needed: {}", keys::allowed("listen")));
        }
        let certificate = raw.tls.certificate.is_some();
        // `None`: what is wrong with them is said elsewhere.
        let plaintext_from: Option<Vec<_>> = raw.login.plaintext_from.iter().map(|text| network(text)).collect();
        let mut listeners = Vec::new();
        for (index, listen) in raw.listen.iter().enumerate() {
            let key = format!("listen.{index}.url");
            let url = Url::parse(&listen.url).filter(|url| matches!(url.scheme, "pop3" | "pop3s"));
            let Some((url, port)) = url.and_then(|url| url.port.map(|port| (url, port))) else {
                self.wrong::<()>(&key, &listen.url);
                continue;
            };
            let tls = url.scheme == "pop3s";
            if tls && !certificate {
                let found = format!("found {}", quoted(&listen.url));
                self.refuse::<()>(&key, &found, "needed: tls.certificate and tls.key, or pop3:// instead");
            } else if let (false, false, Some(networks)) = (tls, certificate, &plaintext_from) {
                self.plaintext(&key, &listen.url, url.host, networks);
            }
            let proxies = self.proxies(&format!("listen.{index}.proxy_protocol_from"), &listen.proxy_protocol_from);
            listeners.push(Listener { endpoint: url.endpoint(port), tls, proxies });
        }
        listeners
    }

    pub(super) fn admin(&mut self, raw: &Raw) -> Option<Endpoint> {
        const KEY: &str = "admin.listen";
        let written = raw.admin.listen.as_ref()?;
        let url = format!("http://{written}");
        let endpoint = Url::parse(&url).and_then(|url| Some(url.endpoint(url.port?)));
        let Some(endpoint) = endpoint else { return self.wrong(KEY, written) };
        if !endpoint.is_loopback() {
            self.warnings
                .push(format!("{KEY}: other machines may ask at {written}, too, and nobody need say who they are"));
        }
        Some(endpoint)
    }

    /// Without TLS only some may log in. Notes a port at which none of them can arrive.
    fn plaintext(&mut self, key: &str, url: &str, host: &str, plaintext_from: &[IpNet]) {
        let addresses = addresses(host);
        let comes = |network: &&IpNet| addresses.iter().any(|address| comes_to(network, *address));
        let elsewhere = addresses.iter().any(|address| !address.is_loopback());
        let mut networks = plaintext_from.iter().filter(comes).peekable();
        if networks.peek().is_none() {
            self.refuse::<()>(
                key,
                &format!(
                    "found {}, where nobody could log in: there is no TLS, and nobody in login.plaintext_from comes there",
                    quoted(url)
                ),
                "needed: tls.certificate and tls.key, or the networks of its clients in login.plaintext_from",
            );
        } else if elsewhere && networks.all(is_loopback) {
            self.warnings.push(format!(
                "listen.url: from other machines nobody can log in at {url}: there is no TLS, and login.plaintext_from \
                 has none of their networks"
            ));
        }
    }

    fn proxies(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let proxies = self.networks(key, texts);
        if let Some(all) = proxies.iter().find(|network| network.prefix_len() == 0) {
            self.refuse::<()>(
                key,
                &format!("found \"{all}\", from where everybody could pretend to be anybody"),
                "needed: the networks of your load balancers alone",
            );
        }
        proxies
    }
}

/// The addresses of a host, as far as they are known: `[::]` is any.
fn addresses(host: &str) -> Vec<IpAddr> {
    match host.parse::<IpAddr>() {
        Ok(address) => vec![address.to_canonical()],
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => vec![Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// Whether somebody in the network may be a client at the address: at loopback this machine alone, at an address of its
/// own everybody else.
fn comes_to(network: &IpNet, address: IpAddr) -> bool {
    let same_family = network.addr().is_ipv4() == address.is_ipv4();
    if address.is_unspecified() {
        // `[::]` takes IPv4 as well.
        return same_family || address.is_ipv6();
    }
    same_family
        && if address.is_loopback() {
            is_loopback(network) || network.contains(&address)
        } else {
            !is_loopback(network)
        }
}

/// Whether there is nothing in the network but loopback.
fn is_loopback(network: &IpNet) -> bool {
    network.network().is_loopback()
}
