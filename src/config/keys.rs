//! All keys, with what each allows in words, as error messages say it; and the nearest one to a misspelt name.

/// What kind of value a key has. Only texts and lists matter: a text from the environment or the command line is taken
/// as it is, even if it looks like a number, and a list may be written there with commas and without brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Text,
    List,
    Number,
    Switch,
}

/// What kind of value this key has; `None` if there is no such key.
pub(super) fn kind(key: &str) -> Option<Kind> {
    KEYS.iter().find(|(name, ..)| *name == key).map(|(_, kind, _)| *kind)
}

/// What this key, or section, allows.
pub(super) fn allowed(key: &str) -> String {
    if let Some((.., allowed)) = KEYS.iter().find(|(name, ..)| *name == key) {
        return (*allowed).to_owned();
    }
    let same = key.strip_prefix("route.").unwrap_or(key);
    match key {
        "listen" => "one or more tables [[listen]] with the keys url and proxy_protocol_from".to_owned(),
        "route" => {
            "tables [[route]] with the key domains and the tables [route.upstream] and [route.maildrop]".to_owned()
        }
        _ if key != same && same.contains('.') => allowed(same),
        _ => {
            let keys: Vec<_> = section(same).map(|(_, name)| name).collect();
            format!("a table [{key}] with the keys {}", keys.join(", "))
        }
    }
}

/// The key, or section, that was most likely meant.
pub(super) fn nearest(key: &str) -> String {
    // A route has keys of its own, and in its tables those of the sections that are called so.
    let (within, key) = key.strip_prefix("route.").map_or(("", key), |key| ("route.", key));
    let known = |name: &&str| within.is_empty() || IN_ROUTES.iter().any(|section| name.starts_with(section));
    let distance = |name: &str| {
        // `tls.cert` is short for something.
        if name.starts_with(key) {
            return 1;
        }
        // A key in the wrong section, or without one, was meant as long as its own name is right.
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        edits(name, key).min(edits(&last(name), &last(key)) + 2)
    };
    let names = sections().into_iter().filter(|_| !key.contains('.')).chain(KEYS.iter().map(|(name, ..)| *name));
    let nearest = names.filter(known).min_by_key(|name| distance(name)).unwrap_or_default();
    format!("{within}{}", nearest.strip_prefix(within).unwrap_or(nearest))
}

/// The sections, in the order of the manual.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().filter_map(|(key, ..)| Some(key.split_once('.')?.0)).collect();
    sections.dedup();
    sections
}

/// The keys of a section, as (section, name).
fn section(section: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYS.iter().filter_map(|(key, ..)| key.split_once('.')).filter(move |(of, _)| *of == section)
}

/// How many characters must be put in, taken out or changed to make one text into the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (done, left) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (column, right) in other.iter().enumerate() {
            let changed = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// What a route can have besides the list of its domains.
const IN_ROUTES: [&str; 3] = ["route.", "upstream", "maildrop"];

const SWITCH: &str = "true or false";

/// Items of lists are left out of the names: `listen.url` is the url of any listener.
pub(super) const KEYS: &[(&str, Kind, &str)] = &[
    ("listen.url", Kind::Text, "pop3://HOST:PORT or pop3s://HOST:PORT, an IPv6 address in brackets"),
    ("listen.proxy_protocol_from", Kind::List, "a list of networks, such as [\"10.0.0.0/8\"]"),
    ("tls.certificate", Kind::Text, "a PEM file with the certificate chain, the server's own certificate first"),
    ("tls.key", Kind::Text, "a PEM file with the private key of tls.certificate"),
    ("login.plaintext_from", Kind::List, "a list of networks, such as [\"127.0.0.0/8\", \"::1/128\"]"),
    ("login.failure_delay", Kind::Text, "a time from 0s to 30s, such as \"2s\""),
    ("login.denial_ttl", Kind::Text, "a time from 0s to 1h, such as \"60s\""),
    ("login.append_domain", Kind::Text, "a domain, such as \"example.com\""),
    ("login.dangerous_plaintext_from_anywhere", Kind::Switch, SWITCH),
    (
        "upstream.url",
        Kind::Text,
        "imaps://HOST[:993], imap+starttls://HOST[:143] or, for loopback hosts, imap://HOST[:143], \
         an IPv6 address in brackets",
    ),
    ("upstream.ca", Kind::Text, "a PEM file with certificates to trust besides the system's"),
    ("upstream.mailbox", Kind::Text, "the name of a mailbox, such as \"INBOX\""),
    ("upstream.strip_domain", Kind::Switch, SWITCH),
    ("upstream.send_client_address", Kind::Switch, SWITCH),
    ("upstream.dangerous_plaintext", Kind::Switch, SWITCH),
    ("upstream.read_ahead", Kind::Switch, SWITCH),
    ("upstream.warm_ttl", Kind::Text, "a time from 0s to 30m, such as \"60s\""),
    ("upstream.warm_auth_ttl", Kind::Text, "a time from 0s to 30m, such as \"5m\""),
    (
        "maildrop.uidl",
        Kind::Text,
        "dovecot, cyrus, uw, courier, uid, stalwart or a template such as \"{uidvalidity}.{uid}\"",
    ),
    (
        "maildrop.on_delete",
        Kind::Text,
        "\"expunge\" or \"ignore\" (\"trash\", \"archive\" and \"mark\" are not built yet)",
    ),
    ("maildrop.seen", Kind::Text, "\"quit\", \"retr\" or \"never\""),
    ("maildrop.deleted", Kind::Text, "\"show\", \"hide\" or \"own\""),
    ("maildrop.lock", Kind::Text, "\"none\" or \"gateway\""),
    ("route.domains", Kind::List, "a list of domains without wildcards, such as [\"example.com\", \"example.net\"]"),
    ("cache.listings", Kind::Switch, SWITCH),
    ("cache.size", Kind::Text, "a size from 0KiB to 1024GiB, such as \"64MiB\""),
    (
        "cache.path",
        Kind::Text,
        "a directory of popgate's own with mode 0700, or one that is not there yet and can be made",
    ),
    ("limits.sessions", Kind::Number, "a number from 1 to 1000000"),
    ("limits.sessions_per_address", Kind::Number, "a number from 1 to 1000000"),
    ("limits.sessions_per_user", Kind::Number, "a number from 0 to 1000000"),
    ("limits.handshakes_in_flight", Kind::Number, "a number from 1 to 1000000"),
    ("limits.logins_per_second", Kind::Number, "a number from 1 to 1000000"),
    ("drain.accept_grace", Kind::Text, "0s or a time shorter than drain.deadline, such as \"5s\""),
    ("drain.deadline", Kind::Text, "a time from 0s to 1h, such as \"25s\""),
    ("admin.listen", Kind::Text, "HOST:PORT, such as \"127.0.0.1:9110\", an IPv6 address in brackets"),
    ("log.format", Kind::Text, "\"text\" or \"json\""),
    (
        "log.level",
        Kind::Text,
        "\"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\" or a list such as \"info,popgate=debug\"",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let cases = [
            ("upstream.ulr", "upstream.url"),
            ("lisen", "listen"),
            ("upstraem", "upstream"),
            ("failure_delay", "login.failure_delay"),
            ("limits.session", "limits.sessions"),
            ("maildrop.failure_delay", "login.failure_delay"),
            ("log.levle", "log.level"),
            ("tls.cert", "tls.certificate"),
            ("routes", "route"),
            ("domains", "route.domains"),
            ("route.domain", "route.domains"),
            ("route.url", "route.upstream.url"),
            ("route.upstraem", "route.upstream"),
            ("route.upstream.ulr", "route.upstream.url"),
            ("route.upstream.on_delete", "route.maildrop.on_delete"),
        ];
        for (typed, meant) in cases {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }

    #[test]
    fn the_manual_has_every_key() {
        let manual = include_str!("../../config/popgate.toml");
        for (key, ..) in KEYS {
            let (section, name) = key.split_once('.').unwrap();
            let header = match section {
                "listen" => "\n[[listen]]\n".to_owned(),
                "route" => "\n#[[route]]\n".to_owned(),
                _ => format!("\n[{section}]\n"),
            };
            let (_, rest) = manual.split_once(&header).unwrap();
            let section = rest.split("\n[").next().unwrap();
            let stands = |start: String| section.contains(&start) || rest.starts_with(&start[1..]);
            assert!(stands(format!("\n{name} = ")) || stands(format!("\n#{name} = ")), "{key}");
        }
    }

    #[test]
    fn a_distance_counts_edits() {
        for (one, other, distance) in [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("url", "ulr", 2)] {
            assert_eq!(edits(one, other), distance);
            assert_eq!(edits(other, one), distance);
        }
    }
}
