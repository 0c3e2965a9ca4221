//! The IMAP servers: the one for everybody, those for users of some domains, and what holds for the maildrops on each.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    time::Duration,
};

use super::{Check, Domain, quoted, without_numbers};
use crate::{
    config::{
        Problem, Route, Upstream, keys,
        raw::{self, Raw},
        url::Url,
    },
    gateway::{Lock, Maildrops, Seen},
    net::{Endpoint, tls::Connector},
    pop3::unique_id::{self, Template},
    upstream::{
        imap::{self, Deleted, OnDelete, Security},
        warm,
    },
};

/// What a table of maildrops says, and before it the tables that it is based on.
#[derive(Clone)]
struct Maildrop {
    unique_ids: Template,
    on_delete: Option<OnDelete>,
    seen: Seen,
    deleted: Deleted,
    lock: Lock,
}

/// Where a table stands, `route.0.` or nothing before its name, and whose users it is for.
#[derive(Clone, Copy)]
struct Place<'a> {
    before: &'a str,
    domains: &'a [String],
}

impl Check<'_> {
    /// The upstream for users of domains that no route names; it may be left out if there are routes. And the routes.
    pub(super) fn upstreams(&mut self, raw: &Raw) -> (Option<Upstream>, Vec<Route>) {
        let place = Place { before: "", domains: &[] };
        let built_in = Maildrop {
            unique_ids: Template::default(),
            on_delete: None,
            seen: Seen::Quit,
            deleted: Deleted::Show,
            lock: Lock::None,
        };
        let maildrop = self.maildrop(place, &raw.maildrop, &built_in);
        let base = maildrop.clone().unwrap_or(built_in);
        let upstream = if raw.upstream.url.is_some() || raw.route.is_empty() {
            self.upstream(place, &raw.upstream, maildrop)
        } else {
            self.nothing_without_url(&raw.upstream);
            None
        };
        let mut known = HashMap::new();
        let routes = raw.route.iter().enumerate().filter_map(|(index, route)| {
            let place = Place { before: &format!("route.{index}."), domains: &route.domains };
            let domains = self.domains(&place.key("domains"), &route.domains, &mut known);
            let maildrop = self.maildrop(place, &route.maildrop, &base);
            let upstream = self.upstream(place, &route.upstream, maildrop);
            Some(Route { domains, upstream: upstream? })
        });
        let routes = routes.collect();
        (upstream, routes)
    }

    /// Who sets keys of a server without a URL believes that routes take them from there.
    fn nothing_without_url(&mut self, raw: &raw::Upstream) {
        let default = raw::Upstream::default();
        for (key, set) in [
            ("upstream.ca", raw.ca.is_some()),
            ("upstream.mailbox", raw.mailbox != default.mailbox),
            ("upstream.strip_domain", raw.strip_domain),
            ("upstream.send_client_address", raw.send_client_address),
            ("upstream.dangerous_plaintext", raw.dangerous_plaintext),
            ("upstream.read_ahead", raw.read_ahead != default.read_ahead),
            ("upstream.warm_ttl", raw.warm_ttl != default.warm_ttl),
            ("upstream.warm_auth_ttl", raw.warm_auth_ttl != default.warm_auth_ttl),
        ] {
            if set {
                let instead = "needed: upstream.url as well, or the key in the [route.upstream] that it is meant for";
                self.refuse::<()>(key, "set without upstream.url", instead);
            }
        }
    }

    /// `known` are the domains of all routes so far, as they were written.
    fn domains<'a>(&mut self, key: &str, list: &'a [String], known: &mut HashMap<Domain, &'a str>) -> Vec<Domain> {
        if list.is_empty() {
            self.refuse::<()>(key, "found an empty list", &format!("needed: {}", keys::allowed("route.domains")));
        }
        let mut domains = Vec::new();
        for written in list {
            let Some(domain) = Domain::parse(written) else {
                self.wrong::<()>(key, written);
                continue;
            };
            match known.entry(domain.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(written);
                    domains.push(domain);
                }
                Entry::Occupied(entry) if entry.get() == written => {
                    self.refuse::<()>(key, &format!("found {written:?} twice"), ONCE);
                }
                Entry::Occupied(entry) => {
                    self.refuse::<()>(key, &format!("found {written:?}, which is the same as {:?}", entry.get()), ONCE);
                }
            }
        }
        domains
    }

    fn upstream(&mut self, place: Place<'_>, raw: &raw::Upstream, maildrop: Option<Maildrop>) -> Option<Upstream> {
        let server = self.server(place, raw);
        let mailbox = self.mailbox(&place.key("upstream.mailbox"), &raw.mailbox);
        let ca = raw.ca.as_ref().and_then(|file| self.ca(&place.key("upstream.ca"), file));
        let ttl = self.time(&place.key("upstream.warm_ttl"), &raw.warm_ttl, LONGEST);
        let auth_ttl = self.time(&place.key("upstream.warm_auth_ttl"), &raw.warm_auth_ttl, LONGEST);
        if raw.dangerous_plaintext {
            self.dangerous.push(place.named("upstream.dangerous_plaintext"));
        }
        let ((security, endpoint), mailbox) = (server?, mailbox?);
        let Maildrop { unique_ids, on_delete, seen, deleted, lock } = maildrop?;
        Some(Upstream {
            ca,
            warm: warm::Settings { ttl: ttl?, auth_ttl: auth_ttl? },
            maildrops: Maildrops {
                upstream: endpoint.to_string(),
                mailbox: mailbox.clone(),
                strip_domain: raw.strip_domain,
                send_client_address: raw.send_client_address,
                unique_ids,
                seen,
                lock,
            },
            server: imap::Settings { security, endpoint, mailbox, on_delete, deleted, read_ahead: raw.read_ahead },
        })
    }

    fn server(&mut self, place: Place<'_>, raw: &raw::Upstream) -> Option<(Security, Endpoint)> {
        let key = place.key("upstream.url");
        let Some(text) = &raw.url else {
            let found = match place.domains {
                [] => "not set in any file, nor as --upstream or POPGATE_UPSTREAM__URL".to_owned(),
                domains => format!("not set for {}", domains.join(", ")),
            };
            self.problems.push(Problem {
                // Of a route it can be said where it stands.
                source: self.layers.source(&place.key("domains")),
                key: without_numbers(&key),
                found,
                instead: format!("needed: {}", keys::allowed("upstream.url")),
            });
            return None;
        };
        // Nobody listens on port 0.
        let server = Url::parse(text).filter(|url| url.port != Some(0)).and_then(|url| match url.scheme {
            "imaps" => Some((Security::Implicit, url.endpoint(993))),
            "imap+starttls" => Some((Security::StartTls, url.endpoint(143))),
            "imap" => Some((Security::Plain, url.endpoint(143))),
            _ => None,
        });
        let Some((security, endpoint)) = server else { return self.wrong(&key, text) };
        if security == Security::Plain && !endpoint.is_loopback() && !raw.dangerous_plaintext {
            return self.refuse(
                &key,
                &format!("found {text:?}, where passwords and mail would travel in clear text"),
                &format!(
                    "allowed: imaps:// or imap+starttls://; imap:// to other than loopback hosts only if {} = true",
                    without_numbers(&place.key("upstream.dangerous_plaintext"))
                ),
            );
        }
        Some((security, endpoint))
    }

    fn mailbox(&mut self, key: &str, name: &str) -> Option<String> {
        match name.is_empty() || name.chars().any(char::is_control) {
            true => self.wrong(key, name),
            false => Some(name.to_owned()),
        }
    }

    fn ca(&mut self, key: &str, written: &str) -> Option<PathBuf> {
        let file = self.layers.path(key, written);
        match Connector::new(Some(&file)) {
            Ok(_) => Some(file),
            Err(error) => self.wrong_file(key, &error),
        }
    }

    fn maildrop(&mut self, place: Place<'_>, raw: &raw::Maildrop, base: &Maildrop) -> Option<Maildrop> {
        let unique_ids = self.unique_ids(place, raw.uidl.as_ref(), &base.unique_ids);
        let choices = [("expunge", Some(OnDelete::Expunge)), ("ignore", Some(OnDelete::Ignore))];
        let on_delete = self.set(place, "on_delete", raw.on_delete.as_ref(), base.on_delete, &choices);
        let choices = [("quit", Seen::Quit), ("retr", Seen::Retr), ("never", Seen::Never)];
        let seen = self.set(place, "seen", raw.seen.as_ref(), base.seen, &choices);
        let choices = [("show", Deleted::Show), ("hide", Deleted::Hide), ("own", Deleted::Own)];
        let deleted = self.set(place, "deleted", raw.deleted.as_ref(), base.deleted, &choices);
        let choices = [("none", Lock::None), ("gateway", Lock::Gateway)];
        let lock = self.set(place, "lock", raw.lock.as_ref(), base.lock, &choices);
        Some(Maildrop { unique_ids: unique_ids?, on_delete: on_delete?, seen: seen?, deleted: deleted?, lock: lock? })
    }

    fn unique_ids(&mut self, place: Place<'_>, found: Option<&String>, base: &Template) -> Option<Template> {
        let Some(text) = found else { return Some(base.clone()) };
        let template: Template = match text.parse() {
            Ok(template) => template,
            Err(error) => {
                let error: unique_id::Error = error;
                let found = format!("found {}", quoted(text));
                return self.refuse(&place.key("maildrop.uidl"), &found, &error.to_string());
            }
        };
        let warning = template.warning().map(|warning| format!("{}: {warning}", place.named("maildrop.uidl")));
        self.warnings.extend(warning);
        Some(template)
    }

    /// A choice that is made in this table, or else in those it is based on.
    fn set<T: Copy>(
        &mut self,
        place: Place<'_>,
        key: &str,
        found: Option<&String>,
        base: T,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let Some(found) = found else { return Some(base) };
        self.choice(&place.key(&format!("maildrop.{key}")), found, choices)
    }
}

impl Place<'_> {
    /// A key in full, with its number if it is one of a list.
    fn key(self, key: &str) -> String {
        format!("{}{key}", self.before)
    }

    /// A key as the log says it: there nothing that was found shows which route is meant.
    fn named(self, key: &str) -> String {
        let key = without_numbers(&self.key(key));
        match self.domains {
            [] => key,
            domains => format!("{key} for {}", domains.join(", ")),
        }
    }
}

const ONCE: &str = "allowed: each domain once, in one route";

/// Servers log out who is silent for half an hour (RFC 3501 §5.4).
const LONGEST: Duration = Duration::from_secs(30 * 60);
