//! What the tests share: dialogues to read and a server to talk to.

#[allow(dead_code, unused_imports, reason = "examples and measurements use the rest")]
pub(crate) mod script;
