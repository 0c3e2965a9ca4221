//! popgate lets software that speaks only POP3 use mailboxes that are served only by IMAP.
//!
//! # The house
//!
//! Imports go down only, and never sideways on floor 1; `tests/floors.rs` holds the tree to this picture.
//!
//! ```text
//! floor 3   main  cli  config  telemetry                the process; may import everything below
//!           server  admin  check  probe
//!             │
//! floor 2   gateway                                     one POP3 session on one upstream mailbox
//!           ┌─┴────────┐
//! floor 1  pop3      upstream                           two languages, which never import one another
//!          (pure)     (IMAP)
//!           └─┬────────┴──────┐
//! floor 0   mail             net                        the nouns both sides share · wires and TLS
//! ```
//!
//! * [`pop3`] is a pure function and sees [`mail`] alone: no tokio, no clock, no word of IMAP. [`upstream`] has no word of
//!   POP3. [`gateway`] is the one place where both are spoken.
//! * Rooms own their `Settings`; [`config`] gathers them, so no room imports it.
//! * The network is handed in, as [`net::Wire`] and [`net::Dial`]: tests put something else there.
//!
//! # What always holds
//!
//! Comments and tests refer to these by number.
//!
//! * **F-01** The line with the single dot follows a message only when the message has come in whole and the server's
//!   tagged OK behind it. Otherwise the line is broken off, so that half a message is never taken for a whole one.
//! * **F-02** A message is flagged, moved or removed upstream only if this session answered its DELE with `+OK`, then
//!   read QUIT, and UIDVALIDITY is still the same.
//! * **F-03** A message whose DELE was not accepted is never removed, whatever flags it bears and whoever set them.
//! * **F-08** The list of messages is complete, or the log-in fails; it is empty only if the server said so.
//! * **F-27** `+OK` to QUIT means that every deleted message is gone, as the configured policy understands it. Where there
//!   is doubt the answer is `-ERR`.

pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod mail;
pub mod net;
pub mod pop3;
pub mod probe;
pub mod server;
pub mod telemetry;
pub mod upstream;
