//! The POP3 side as pure functions (RFC 1939, 2449, 2595, 3206, 5034): octets in, bounded lines, commands, and out what
//! to answer or to have done. No I/O, no clock, no randomness, and nothing of the protocol behind it.

mod digits;
pub mod stuff;
pub mod top;
pub mod unique_id;
