//! What stands between guesses and the servers: log-ins that have just been refused are not passed on again.

mod denials;
mod fingerprint;

pub(super) use denials::Denials;
