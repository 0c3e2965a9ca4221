//! The configuration as it is written, in plain texts and numbers, with the built-in defaults. Unknown keys are errors.

use serde::Deserialize;

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) listen: Vec<Listen>,
    pub(super) tls: Tls,
    pub(super) login: Login,
    pub(super) upstream: Upstream,
    pub(super) maildrop: Maildrop,
    pub(super) route: Vec<Route>,
    pub(super) cache: Cache,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    pub(super) admin: Admin,
    pub(super) log: Log,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) url: String,
    #[serde(default)]
    pub(super) proxy_protocol_from: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) listen: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Login {
    pub(super) plaintext_from: Vec<String>,
    pub(super) failure_delay: String,
    pub(super) denial_ttl: String,
    pub(super) append_domain: Option<String>,
    pub(super) dangerous_plaintext_from_anywhere: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) url: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) mailbox: String,
    pub(super) strip_domain: bool,
    pub(super) send_client_address: bool,
    pub(super) dangerous_plaintext: bool,
    pub(super) read_ahead: bool,
    pub(super) warm_ttl: String,
    pub(super) warm_auth_ttl: String,
}

/// What is not set here is set above: for a route in `[maildrop]`, for that in the defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Maildrop {
    pub(super) uidl: Option<String>,
    pub(super) on_delete: Option<String>,
    pub(super) seen: Option<String>,
    pub(super) deleted: Option<String>,
    pub(super) lock: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) domains: Vec<String>,
    #[serde(default)]
    pub(super) upstream: Upstream,
    #[serde(default)]
    pub(super) maildrop: Maildrop,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cache {
    pub(super) listings: bool,
    pub(super) size: String,
    pub(super) path: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) sessions: u32,
    pub(super) sessions_per_address: u32,
    pub(super) sessions_per_user: u32,
    pub(super) handshakes_in_flight: u32,
    pub(super) logins_per_second: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Drain {
    pub(super) accept_grace: String,
    pub(super) deadline: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: String,
    pub(super) level: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            listen: vec![Listen { url: "pop3://127.0.0.1:1110".to_owned(), proxy_protocol_from: Vec::new() }],
            tls: Tls::default(),
            login: Login::default(),
            upstream: Upstream::default(),
            maildrop: Maildrop::default(),
            route: Vec::new(),
            cache: Cache::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}

impl Default for Login {
    fn default() -> Self {
        Self {
            plaintext_from: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            failure_delay: "2s".to_owned(),
            denial_ttl: "60s".to_owned(),
            append_domain: None,
            dangerous_plaintext_from_anywhere: false,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: None,
            ca: None,
            mailbox: "INBOX".to_owned(),
            strip_domain: false,
            send_client_address: false,
            dangerous_plaintext: false,
            read_ahead: true,
            warm_ttl: "60s".to_owned(),
            warm_auth_ttl: "300s".to_owned(),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { listings: true, size: "64MiB".to_owned(), path: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            sessions_per_address: 64,
            sessions_per_user: 0,
            handshakes_in_flight: 1_000,
            logins_per_second: 500,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { accept_grace: "0s".to_owned(), deadline: "25s".to_owned() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "text".to_owned(), level: "info".to_owned() }
    }
}
