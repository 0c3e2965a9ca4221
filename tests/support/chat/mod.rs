//! Transcripts: dialogues that a postmaster can read, and that are played against popgate. `tests/README.md` has the
//! format. POP3 stands at the left edge, IMAP is indented, and the text is the truth: the upstream of a transcript knows
//! nothing of IMAP.

mod mail;
mod play;
mod score;
mod wire;

pub(crate) use mail::{beginning, stuffed, top};
pub(crate) use play::{Serve, play};
pub(crate) use score::{Options, Score};
