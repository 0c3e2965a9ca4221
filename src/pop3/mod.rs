//! The POP3 side as pure functions (RFC 1939, 2449, 2595, 3206, 5034): octets in, bounded lines, commands, and out what
//! to answer or to have done. No I/O, no clock, no randomness, and nothing of the protocol behind it.

mod authorization;
mod bearer;
mod capa;
pub mod command;
mod digits;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod line;
mod listing;
mod maildrop;
mod marks;
pub mod reply;
mod sasl;
pub mod session;
pub mod stuff;
pub mod top;
mod transaction;
pub mod unique_id;
mod update;
