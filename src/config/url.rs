//! The URLs of the command line and the configuration: `scheme://HOST[:PORT]` and nothing behind it. No path, no user
//! name, no query; RFC 5092's IMAP URLs are not meant.

use crate::net::Endpoint;

/// A URL in its parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url<'a> {
    pub(crate) scheme: &'a str,
    /// A name, or an address without brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

impl<'a> Url<'a> {
    /// `None` if the text is not of this form.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if let Some(rest) = rest.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            return Some(Self { scheme, host, port: port(rest)? });
        }
        let (host, rest) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
        is_host(host).then_some(())?;
        Some(Self { scheme, host, port: port(rest)? })
    }

    /// Where the URL leads, by the scheme's own port if it names none. Names in large letters are the same (RFC 4343).
    pub(crate) fn endpoint(&self, default: u16) -> Endpoint {
        Endpoint { host: self.host.to_ascii_lowercase(), port: self.port.unwrap_or(default) }
    }
}

/// `:PORT` or nothing.
fn port(text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.strip_prefix(':').filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))?;
    digits.parse().ok().map(Some)
}

/// A name in ASCII, or an IPv4 address. What has digits and dots only but is no address would be read as one by some
/// resolvers: `127.1`.
fn is_host(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host).split('.');
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let numeric = host.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    labels.into_iter().all(|label| !label.is_empty() && label.bytes().all(allowed))
        && (!numeric || host.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let cases = [
            ("imaps://imap.example.com", Some(("imaps", "imap.example.com", None))),
            ("imaps://imap.example.com:1993", Some(("imaps", "imap.example.com", Some(1993)))),
            ("imap+starttls://mail_1", Some(("imap+starttls", "mail_1", None))),
            ("pop3://127.0.0.1:0", Some(("pop3", "127.0.0.1", Some(0)))),
            ("pop3://[::1]:1110", Some(("pop3", "::1", Some(1110)))),
            ("imaps://[2001:db8::1]", Some(("imaps", "2001:db8::1", None))),
            ("imaps://example.com.", Some(("imaps", "example.com.", None))),
            ("imap.example.com", None),
            ("imaps:imap.example.com", None),
            ("imaps://", None),
            ("imaps://:993", None),
            ("imaps://a..b", None),
            ("imaps://127.1", None),
            ("imaps://127.0.0.1.5", None),
            ("imaps://host:", None),
            ("imaps://host:+993", None),
            ("imaps://host:65536", None),
            ("imaps://host/", None),
            ("imaps://host:993/INBOX", None),
            ("imaps://user@host", None),
            ("imaps://user:secret@host:993", None),
            ("imaps://::1", None),
            ("imaps://[::1", None),
            ("imaps://[::1]993", None),
            ("imaps://[127.0.0.1]", None),
            ("imaps://münchen.example", None),
            ("imaps://ho st", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(scheme, host, port)| Url { scheme, host, port });
            assert_eq!(Url::parse(text), expected, "{text}");
        }
    }
}
