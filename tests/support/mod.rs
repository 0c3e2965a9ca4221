//! What the tests share: dialogues to read, servers to talk to, and the programs they start.

#[allow(dead_code, unused_imports, reason = "measurements use the rest")]
pub(crate) mod chat;
#[allow(dead_code, reason = "the history is fed by the tests that run many sessions")]
pub(crate) mod checker;
pub(crate) mod dovecot;
pub(crate) mod faulty;
pub(crate) mod gate;
#[allow(dead_code, reason = "measurements use none of it")]
pub(crate) mod http;
pub(crate) mod imap;
pub(crate) mod messages;
#[allow(dead_code, reason = "measurements use none of it")]
pub(crate) mod overheard;
#[allow(dead_code, reason = "measurements use the rest")]
pub(crate) mod pop3;
pub(crate) mod process;
pub(crate) mod recorder;
pub(crate) mod row;
#[allow(dead_code, unused_imports, reason = "examples and measurements use the rest")]
pub(crate) mod script;
#[allow(dead_code, reason = "measurements use the rest")]
pub(crate) mod serve;
pub(crate) mod tls;
