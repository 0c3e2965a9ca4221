//! From texts to what the rooms want to be told: each value for itself, then those that only make sense together.

use std::{mem, net::IpAddr, path::PathBuf, time::Duration};

use humantime_serde::re::humantime;
use ipnet::IpNet;

use super::{
    Config, Drain, Error, Limits, Listener, Problem, Route, Tls, keys,
    layers::{Layers, without_numbers},
    problem::quoted,
    raw::Raw,
};
use crate::{
    gateway::{self, Domain},
    net::tls::{self, Acceptor},
    telemetry::{self, Format},
    upstream::cache,
};

mod listen;
mod upstream;

/// Checks everything, and reports all problems at once.
pub(super) fn check(raw: &Raw, layers: &Layers) -> Result<Config, Error> {
    let mut check = Check { layers, problems: Vec::new(), dangerous: Vec::new(), warnings: Vec::new() };
    match check.config(raw) {
        Some(config) if check.problems.is_empty() => Ok(config),
        _ => Err(Error(check.problems)),
    }
}

/// What is to be said so far. Its functions note problems and give nothing then, so that the rest is still looked at.
struct Check<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
    dangerous: Vec<String>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn config(&mut self, raw: &Raw) -> Option<Config> {
        let listeners = self.listeners(raw);
        let tls = self.tls(raw);
        let gateway = self.login(raw);
        let (upstream, routes) = self.upstreams(raw);
        let append_domain = self.append_domain(raw, &routes);
        let cache = self.cache(raw);
        let limits = self.limits(raw);
        let drain = self.drain(raw);
        let admin = self.admin(raw);
        let log = self.log(raw);
        Some(Config {
            listeners,
            tls,
            upstream,
            routes,
            append_domain,
            gateway: gateway?,
            cache: cache?,
            limits: limits?,
            drain: drain?,
            admin,
            log: log?,
            dangerous: mem::take(&mut self.dangerous),
            warnings: mem::take(&mut self.warnings),
        })
    }

    fn tls(&mut self, raw: &Raw) -> Option<Tls> {
        let (certificate, key) = match (&raw.tls.certificate, &raw.tls.key) {
            (None, None) => return None,
            (Some(_), None) => return self.refuse("tls.certificate", "set without its key", "needed: tls.key as well"),
            (None, Some(_)) => {
                return self.refuse("tls.key", "set without its certificate", "needed: tls.certificate as well");
            }
            (Some(certificate), Some(key)) => (certificate, key),
        };
        let certificate = self.layers.path("tls.certificate", certificate);
        let key = self.layers.path("tls.key", key);
        // The server loads them again; here they only have to be good.
        match Acceptor::load(&certificate, &key) {
            Ok(_) => Some(Tls { certificate, key }),
            Err(error) => {
                let at = if error.file() == Some(&certificate) { "tls.certificate" } else { "tls.key" };
                self.wrong_file(at, &error)
            }
        }
    }

    fn login(&mut self, raw: &Raw) -> Option<gateway::Settings> {
        let failure_delay = self.time("login.failure_delay", &raw.login.failure_delay, LONGEST_DELAY);
        let denial_ttl = self.time("login.denial_ttl", &raw.login.denial_ttl, LONGEST_DENIAL);
        let plaintext_from = self.plaintext_from(raw);
        let sessions_per_user = self.number("limits.sessions_per_user", raw.limits.sessions_per_user, 0);
        Some(gateway::Settings {
            failure_delay: failure_delay?,
            denial_ttl: denial_ttl?,
            sessions_per_user: sessions_per_user?,
            plaintext_from,
        })
    }

    fn plaintext_from(&mut self, raw: &Raw) -> Vec<IpNet> {
        const KEY: &str = "login.plaintext_from";
        let networks = self.networks(KEY, &raw.login.plaintext_from);
        let private: Vec<IpNet> = PRIVATE.iter().filter_map(|text| network(text)).collect();
        let public = networks.iter().find(|network| !private.iter().any(|private| private.contains(*network)));
        if let Some(public) = public.filter(|_| !raw.login.dangerous_plaintext_from_anywhere) {
            self.refuse::<()>(
                KEY,
                &format!("found \"{public}\", from where passwords would travel in clear text"),
                "allowed: loopback and private networks; others only if \
                 login.dangerous_plaintext_from_anywhere = true",
            );
        }
        if raw.login.dangerous_plaintext_from_anywhere {
            self.dangerous.push("login.dangerous_plaintext_from_anywhere".to_owned());
        }
        networks
    }

    /// As it is written, since it becomes a part of names.
    fn append_domain(&mut self, raw: &Raw, routes: &[Route]) -> Option<String> {
        const KEY: &str = "login.append_domain";
        let written = raw.login.append_domain.as_ref()?;
        let Some(domain) = Domain::parse(written) else { return self.wrong(KEY, written) };
        // Of routes that are wrong nothing is known.
        let closed = raw.upstream.url.is_none() && !routes.is_empty() && routes.len() == raw.route.len();
        if closed && !routes.iter().any(|route| route.domains.contains(&domain)) {
            return self.refuse(
                KEY,
                &format!("found {written:?}, whose users no upstream serves"),
                "needed: a domain of a route, or upstream.url for users of all other domains",
            );
        }
        Some(written.clone())
    }

    fn cache(&mut self, raw: &Raw) -> Option<cache::Settings> {
        let size = size(&raw.cache.size).or_else(|| self.wrong("cache.size", &raw.cache.size));
        let path = raw.cache.path.as_ref().and_then(|written| self.directory("cache.path", written));
        Some(cache::Settings { size: if raw.cache.listings { size? } else { 0 }, path })
    }

    fn directory(&mut self, key: &str, written: &str) -> Option<PathBuf> {
        if written.is_empty() {
            return self.wrong(key, written);
        }
        let path = self.layers.path(key, written);
        match cache::usable(&path) {
            Ok(()) => Some(path),
            Err(error) => {
                self.problems.push(Problem::value(self.layers.source(key), key, error));
                None
            }
        }
    }

    fn limits(&mut self, raw: &Raw) -> Option<Limits> {
        let sessions = self.count("limits.sessions", raw.limits.sessions);
        let sessions_per_address = self.count("limits.sessions_per_address", raw.limits.sessions_per_address);
        let handshakes_in_flight = self.count("limits.handshakes_in_flight", raw.limits.handshakes_in_flight);
        let logins_per_second = raw.limits.logins_per_second;
        self.count("limits.logins_per_second", logins_per_second)?;
        Some(Limits {
            sessions: sessions?,
            sessions_per_address: sessions_per_address?,
            handshakes_in_flight: handshakes_in_flight?,
            logins_per_second,
        })
    }

    fn drain(&mut self, raw: &Raw) -> Option<Drain> {
        let deadline = self.time("drain.deadline", &raw.drain.deadline, LONGEST_DRAIN);
        let accept_grace = self.time("drain.accept_grace", &raw.drain.accept_grace, deadline.unwrap_or(LONGEST_DRAIN));
        // Sessions would be broken off as soon as the grace is over.
        if accept_grace == deadline && accept_grace.is_some_and(|grace| !grace.is_zero()) {
            return self.wrong("drain.accept_grace", &raw.drain.accept_grace);
        }
        Some(Drain { accept_grace: accept_grace?, deadline: deadline? })
    }

    fn log(&mut self, raw: &Raw) -> Option<telemetry::Settings> {
        let format = self.choice("log.format", &raw.log.format, &[("text", Format::Text), ("json", Format::Json)]);
        let level = telemetry::level(&raw.log.level).or_else(|| self.wrong("log.level", &raw.log.level));
        Some(telemetry::Settings { format: format?, level: level? })
    }

    fn networks(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let networks = texts.iter().filter_map(|text| network(text).or_else(|| self.wrong(key, text)));
        networks.collect()
    }

    fn count(&mut self, key: &str, found: u32) -> Option<usize> {
        self.number(key, found, 1)
    }

    fn number(&mut self, key: &str, found: u32, least: usize) -> Option<usize> {
        match usize::try_from(found) {
            Ok(count) if (least..=MOST).contains(&count) => Some(count),
            _ => {
                self.problems.push(Problem::value(self.layers.source(key), key, found));
                None
            }
        }
    }

    fn time(&mut self, key: &str, found: &str, longest: Duration) -> Option<Duration> {
        let time = humantime::parse_duration(found).ok().filter(|time| *time <= longest);
        time.or_else(|| self.wrong(key, found))
    }

    fn choice<T: Copy>(&mut self, key: &str, found: &str, choices: &[(&str, T)]) -> Option<T> {
        let choice = choices.iter().find(|(name, _)| *name == found).map(|(_, choice)| *choice);
        choice.or_else(|| self.wrong(key, found))
    }

    /// Notes that a text is none that the key allows.
    fn wrong<T>(&mut self, key: &str, found: &str) -> Option<T> {
        self.problems.push(Problem::value(self.layers.source(key), &without_numbers(key), quoted(found)));
        None
    }

    /// Notes that a file cannot be used.
    fn wrong_file<T>(&mut self, key: &str, error: &tls::Error) -> Option<T> {
        let found = match error {
            tls::Error::Missing { file, what } => format!("{}, in which there is no {what}", file.display()),
            error => error.to_string(),
        };
        self.problems.push(Problem::value(self.layers.source(key), &without_numbers(key), found));
        None
    }

    /// Notes a problem in words of its own.
    fn refuse<T>(&mut self, key: &str, found: &str, instead: &str) -> Option<T> {
        self.problems.push(Problem {
            source: self.layers.source(key),
            key: without_numbers(key),
            found: found.to_owned(),
            instead: instead.to_owned(),
        });
        None
    }
}

/// A network, or a single address. Of IPv4 in IPv6 (`::ffff:10.0.0.0/104`, RFC 4291 §2.5.5.2) it is the one in IPv4, as
/// which clients are known.
fn network(text: &str) -> Option<IpNet> {
    let network: IpNet = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let address = network.addr().to_canonical();
    match network.prefix_len().checked_sub(96) {
        Some(length) if network.addr().is_ipv6() && address.is_ipv4() => IpNet::new(address, length).ok(),
        _ => Some(network),
    }
}

/// A number of KiB, MiB or GiB, in octets.
fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|octet: char| !octet.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|octet| octet.is_ascii_digit()))?;
    let size = number.checked_mul(unit).filter(|size| *size <= LARGEST)?;
    usize::try_from(size).ok()
}

/// More memory than any machine has to spare.
const LARGEST: u64 = 1 << 40;

/// Clients give up a log-in after half a minute or more.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Who has set a new password that was once an old one waits no longer than this.
const LONGEST_DENIAL: Duration = Duration::from_secs(3600);

/// Longer than anybody waits for a process to end.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// More connections than any process has descriptors for.
const MOST: usize = 1_000_000;

/// Loopback, private and link-local networks (RFC 1122, 1918, 3927, 4193, 4291).
const PRIVATE: [&str; 8] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];
