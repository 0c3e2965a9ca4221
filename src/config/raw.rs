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
    pub(super) limits: Limits,
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

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Login {
    pub(super) plaintext_from: Vec<String>,
    pub(super) failure_delay: String,
    pub(super) dangerous_plaintext_from_anywhere: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) url: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) mailbox: String,
    pub(super) dangerous_plaintext: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Maildrop {
    pub(super) uidl: String,
    pub(super) on_delete: Option<String>,
    pub(super) seen: String,
    pub(super) deleted: String,
    pub(super) lock: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) sessions: u32,
    pub(super) sessions_per_address: u32,
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
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

impl Default for Login {
    fn default() -> Self {
        Self {
            plaintext_from: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            failure_delay: "2s".to_owned(),
            dangerous_plaintext_from_anywhere: false,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self { url: None, ca: None, mailbox: "INBOX".to_owned(), dangerous_plaintext: false }
    }
}

impl Default for Maildrop {
    fn default() -> Self {
        Self {
            uidl: "dovecot".to_owned(),
            on_delete: None,
            seen: "quit".to_owned(),
            deleted: "show".to_owned(),
            lock: "none".to_owned(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 10_000, sessions_per_address: 64 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "text".to_owned(), level: "info".to_owned() }
    }
}
