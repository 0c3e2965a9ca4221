//! Which upstream serves a user: chosen by the domain of the user's name from a closed map. A client never names a host.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{Lock, Seen};
use crate::pop3::{session, unique_id::Template};

/// A domain, as user names end in it. Two are equal if they are the same domain, in Unicode or in ASCII (RFC 5890), in
/// large letters or in small ones, with or without the dot at the end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Domain(String);

/// What holds for the maildrops of one upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maildrops {
    /// Which server it is; the log calls it so.
    pub upstream: String,
    /// Which mailbox of a user there.
    pub mailbox: String,
    /// The upstream knows its users without their domain.
    pub strip_domain: bool,
    /// The upstream is told where its clients are.
    pub send_client_address: bool,
    /// How unique ids are written.
    pub unique_ids: Template,
    /// When retrieved messages are flagged `\Seen`.
    pub seen: Seen,
    /// Whether a user may have several sessions.
    pub lock: Lock,
}

/// An upstream, and what holds for the maildrops on it.
pub struct Route<U> {
    pub(super) upstream: U,
    pub(super) maildrops: Maildrops,
    pub(super) session: Arc<session::Settings>,
}

/// All upstreams.
pub struct Routes<U> {
    by_domain: HashMap<Domain, Arc<Route<U>>>,
    default: Option<Arc<Route<U>>>,
    append_domain: Option<String>,
}

impl Domain {
    /// `None` if no domain can have this name.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).unwrap_or(text);
        idna::domain_to_ascii_strict(name).ok().map(Self)
    }
}

/// In ASCII.
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<U> Route<U> {
    /// A way to `upstream`.
    pub fn new(upstream: U, maildrops: Maildrops) -> Self {
        let session =
            session::Settings { unique_ids: maildrops.unique_ids.clone(), seen: maildrops.seen == Seen::Quit };
        Self { upstream, maildrops, session: Arc::new(session) }
    }

    /// Where it leads.
    pub const fn upstream(&self) -> &U {
        &self.upstream
    }
}

impl<U> Routes<U> {
    /// `default` is for users whose domain is in no other route, and for those without one; if there is none, they are
    /// refused like those who do not know their password. To a user name without a domain `append_domain` is added
    /// first.
    pub fn new(default: Option<Route<U>>, append_domain: Option<String>) -> Self {
        Self { by_domain: HashMap::new(), default: default.map(Arc::new), append_domain }
    }

    /// Adds a route for users of these domains.
    pub fn add(&mut self, domains: impl IntoIterator<Item = Domain>, route: Route<U>) {
        let route = Arc::new(route);
        self.by_domain.extend(domains.into_iter().map(|domain| (domain, Arc::clone(&route))));
    }

    /// The route for a user, and the name that the user has there. `None`: no upstream is meant to serve such a user.
    pub fn choose(&self, user: &str) -> Option<(&Route<U>, String)> {
        let user = match &self.append_domain {
            Some(domain) if !user.contains('@') => format!("{user}@{domain}"),
            _ => user.to_owned(),
        };
        // Whatever stands before the last `@` is a part of the name, and so is `%` or `!` wherever it stands.
        let parts = user.rsplit_once('@');
        let known = parts.and_then(|(_, domain)| self.by_domain.get(&Domain::parse(domain)?));
        let route = known.or(self.default.as_ref())?;
        let name = match parts {
            Some((name, _)) if route.maildrops.strip_domain => name.to_owned(),
            _ => user,
        };
        // RFC 4616 and others: a name is never empty.
        (!name.is_empty()).then_some((route, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(upstream: &'static str, strip_domain: bool) -> Route<&'static str> {
        let maildrops = Maildrops {
            upstream: upstream.to_owned(),
            mailbox: "INBOX".to_owned(),
            strip_domain,
            send_client_address: false,
            unique_ids: "dovecot".parse().unwrap(),
            seen: Seen::Quit,
            lock: Lock::None,
        };
        Route::new(upstream, maildrops)
    }

    /// Each line: the user, and the server it is `@` with the name that the user has there; or nothing.
    fn table(default: Option<Route<&'static str>>, append_domain: Option<&str>, lines: &[(&str, &str)]) {
        let mut routes = Routes::new(default, append_domain.map(str::to_owned));
        routes.add(["example.com", "Example.NET."].map(|domain| Domain::parse(domain).unwrap()), route("com", false));
        routes.add(Domain::parse("müller.example"), route("idn", true));
        for (user, expected) in lines {
            let chosen = routes.choose(user).map(|(route, name)| format!("{} {name}", route.upstream));
            assert_eq!(chosen.unwrap_or_default(), *expected, "{user}");
        }
    }

    #[test]
    fn users_go_by_the_domain_of_their_name() {
        let lines = [
            ("tim@example.com", "com tim@example.com"),
            ("tim@EXAMPLE.com.", "com tim@EXAMPLE.com."),
            ("tim@example.net", "com tim@example.net"),
            ("tim@müller.example", "idn tim"),
            ("tim@MÜLLER.example.", "idn tim"),
            ("tim@müller。example。", "idn tim"),
            ("tim@mu\u{308}ller.example", "idn tim"),
            ("tim@xn--mller-kva.example", "idn tim"),
            ("tim@XN--MLLER-KVA.example", "idn tim"),
            ("tim", ""),
            ("tim@", ""),
            ("tim@sub.example.com", ""),
            ("tim@example.com..", ""),
            ("tim@muller.example", ""),
            ("tim@ example.com", ""),
        ];
        table(None, None, &lines);
    }

    #[test]
    fn a_user_does_not_name_a_host() {
        let lines = [
            ("tim@example.com@elsewhere.example", ""),
            ("tim@elsewhere.example@example.com", "com tim@elsewhere.example@example.com"),
            ("tim%elsewhere.example@example.com", "com tim%elsewhere.example@example.com"),
            ("tim@elsewhere.example@müller.example", "idn tim@elsewhere.example"),
            ("@müller.example", ""),
            ("tim%example.com", ""),
            ("example.com!tim", ""),
            ("tim@[10.0.0.1]", ""),
            ("tim@10.0.0.1", ""),
            ("tim@imaps://example.com", ""),
            ("tim@example.com:993", ""),
            ("tim@example.com\0", ""),
        ];
        table(None, None, &lines);
        let lines = lines.map(|(user, expected)| match expected {
            "" if user != "@müller.example" => (user, format!("default {user}")),
            expected => (user, expected.to_owned()),
        });
        table(
            Some(route("default", false)),
            None,
            &lines.each_ref().map(|(user, expected)| (*user, expected.as_str())),
        );
    }

    #[test]
    fn a_domain_is_appended_first_and_stripped_last() {
        let default = || Some(route("default", true));
        table(default(), None, &[("tim", "default tim"), ("tim@elsewhere", "default tim"), ("@elsewhere", "")]);
        table(default(), Some("müller.example"), &[("tim", "idn tim"), ("tim@", "default tim")]);
        table(default(), Some("example.com"), &[("tim", "com tim@example.com"), ("tim@elsewhere", "default tim")]);
        table(None, Some("elsewhere.example"), &[("tim", "")]);
    }

    #[test]
    fn what_no_domain_can_be_called() {
        let long = format!("{}.example", "a".repeat(64));
        for text in ["", ".", "a..b", ".a", "a b", "*.example.com", "@example.com", "[10.0.0.1]", "a/b", "xn--a", &long]
        {
            assert_eq!(Domain::parse(text), None, "{text}");
        }
        for text in ["localhost", "example.com", "1and1.example", "straße.example", "日本語.jp"] {
            assert!(Domain::parse(text).is_some(), "{text}");
        }
    }
}
