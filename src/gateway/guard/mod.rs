//! What stands between guesses and the servers: log-ins that have just been refused are not passed on again, and those
//! that fail take longer and longer.

mod denials;
mod fingerprint;
mod guesses;
mod ladder;
mod turns;

pub(super) use denials::Denials;
pub(super) use guesses::Guesses;
pub(super) use turns::Turn;
