//! Where clients are awaited.

use ipnet::IpNet;

use super::{Check, Listener, keys, quoted};
use crate::config::{raw::Raw, url::Url};

impl Check<'_> {
    pub(super) fn listeners(&mut self, raw: &Raw) -> Vec<Listener> {
        if raw.listen.is_empty() {
            self.refuse::<()>("listen", "found an empty list", &format!("needed: {}", keys::allowed("listen")));
        }
        let certificate = raw.tls.certificate.is_some();
        let nobody = !certificate && raw.login.plaintext_from.is_empty();
        let mut listeners = Vec::new();
        for (index, listen) in raw.listen.iter().enumerate() {
            let key = format!("listen.{index}.url");
            let url = Url::parse(&listen.url).filter(|url| matches!(url.scheme, "pop3" | "pop3s"));
            let Some((url, port)) = url.and_then(|url| url.port.map(|port| (url, port))) else {
                self.wrong::<()>(&key, &listen.url);
                continue;
            };
            let tls = url.scheme == "pop3s";
            let found = format!("found {}", quoted(&listen.url));
            if tls && !certificate {
                self.refuse::<()>(&key, &found, "needed: tls.certificate and tls.key, or pop3:// instead");
            } else if !tls && nobody {
                self.refuse::<()>(
                    &key,
                    &format!("{found}, where nobody could log in: there is no TLS, and login.plaintext_from is empty"),
                    "needed: tls.certificate and tls.key, or networks in login.plaintext_from",
                );
            }
            let proxies = self.proxies(&format!("listen.{index}.proxy_protocol_from"), &listen.proxy_protocol_from);
            listeners.push(Listener { endpoint: url.endpoint(port), tls, proxies });
        }
        listeners
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
