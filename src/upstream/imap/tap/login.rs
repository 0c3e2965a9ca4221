//! A log-in as the tap says it.

use std::collections::VecDeque;

use crate::mail::Secret;

/// A log-in: the command, and the answers to the server's challenges.
pub(in crate::upstream::imap) struct Login {
    /// The command's text behind the tag.
    pub(in crate::upstream::imap) command: Secret<Vec<u8>>,
    /// The lines that answer challenges, in order, without their ends.
    pub(in crate::upstream::imap) answers: VecDeque<Secret<Vec<u8>>>,
    /// The line that answers one challenge too many: it explains a refusal (RFC 7628 §3.2.3) or asks for nothing we know.
    pub(in crate::upstream::imap) surrender: &'static [u8],
    /// There has been a challenge, which only the command can have called for.
    pub(in crate::upstream::imap) challenged: bool,
    /// The challenge too many.
    pub(in crate::upstream::imap) explained: Option<Vec<u8>>,
}

impl Login {
    /// A log-in that sends `command`.
    pub(in crate::upstream::imap) fn new(
        command: Vec<u8>,
        answers: impl IntoIterator<Item = Vec<u8>>,
        surrender: &'static [u8],
    ) -> Self {
        let answers = answers.into_iter().map(Secret::new).collect();
        Self { command: Secret::new(command), answers, surrender, challenged: false, explained: None }
    }
}
