//! What stands between clients and the servers: log-ins that have just been refused are not passed on again, those that
//! fail take longer and longer, and a user has a few sessions at a time.

mod denials;
mod fingerprint;
mod guesses;
mod ladder;
mod places;
mod regulars;
mod turns;

pub(super) use denials::Denials;
pub(super) use guesses::{Guesses, Try};
pub(super) use places::{Place, Places};
pub(super) use turns::Turn;
