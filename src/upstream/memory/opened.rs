//! A mailbox of the in-memory server, as one session has it.

use super::{Deed, Maildrop, Memory, Parts, Trouble};
use crate::{
    mail::{Changes, Uid, UidValidity},
    upstream::{Body, Extent, Fault, Mailbox, Piece, Settled, Verdict, Window},
};

/// A mailbox of [`Memory`], opened for one session.
pub struct Opened {
    server: Memory,
    user: String,
    uid_validity: Option<UidValidity>,
    sending: Option<Sending>,
}

/// A body under way.
struct Sending {
    uid: Uid,
    octets: Vec<u8>,
    at: usize,
    /// Where it breaks off.
    trouble: Option<(usize, Fault)>,
}

impl Opened {
    pub(super) const fn new(server: Memory, user: String, uid_validity: Option<UidValidity>) -> Self {
        Self { server, user, uid_validity, sending: None }
    }

    fn begin(&mut self, deed: Deed, uid: Uid, window: Option<Window>) -> Result<Option<Body<'_, Self>>, Fault> {
        let mut state = self.server.state();
        state.deeds.push(deed);
        if let Some(Trouble::Fetch(fault)) = state.take(|trouble| matches!(trouble, Trouble::Fetch(_))) {
            return Err(fault);
        }
        let mail = state.accounts.get(&self.user).and_then(|account| account.maildrop.messages.get(&uid));
        let Some(mail) = mail else { return Ok(None) };
        let length = match (window, self.server.parts) {
            (None, _) | (_, Parts::Whole) => None,
            (Some(window), Parts::WholeLater) => (window.offset == 0).then_some(window.length),
            (Some(window), Parts::Exact) => Some(window.length),
            (Some(window), Parts::More(more)) => Some(window.length.saturating_add(more)),
        };
        let (octets, extent) = match window.zip(length) {
            Some((window, length)) => {
                let begin = usize::try_from(window.offset).unwrap_or(usize::MAX).min(mail.octets.len());
                let end = begin.saturating_add(length as usize).min(mail.octets.len());
                (mail.octets[begin..end].to_vec(), Extent::Part)
            }
            None => (mail.octets.clone(), Extent::Whole),
        };
        let trouble = match state.take(|trouble| matches!(trouble, Trouble::Body(..))) {
            Some(Trouble::Body(after, fault)) => Some((usize::try_from(after).unwrap_or(usize::MAX), fault)),
            _ => None,
        };
        drop(state);
        let length = octets.len() as u64;
        self.sending = Some(Sending { uid, octets, at: 0, trouble });
        Ok(Some(Body::new(self, length, extent)))
    }
}

impl Mailbox for Opened {
    async fn fetch(&mut self, uid: Uid) -> Result<Option<Body<'_, Self>>, Fault> {
        self.begin(Deed::Fetch(uid), uid, None)
    }

    async fn peek(&mut self, uid: Uid, window: Window) -> Result<Option<Body<'_, Self>>, Fault> {
        self.begin(Deed::Peek(uid, window), uid, Some(window))
    }

    fn ahead(&mut self, _: impl Iterator<Item = Piece>, _: impl Iterator<Item = Piece>) {}

    async fn chunk(&mut self) -> Result<Option<&[u8]>, Fault> {
        let Some(sending) = &mut self.sending else { return Ok(None) };
        let begin = sending.at;
        let breaks = sending.trouble.as_ref().map_or(usize::MAX, |(after, _)| *after);
        let end = sending.octets.len().min(breaks).min(begin + self.server.chunk);
        if begin == end {
            return sending.trouble.take().map_or(Ok(None), |(_, fault)| Err(fault));
        }
        sending.at = end;
        Ok(Some(&sending.octets[begin..end]))
    }

    fn forsake(&mut self) {
        if let Some(sending) = self.sending.take() {
            self.server.state().deeds.push(Deed::Forsake(sending.uid));
        }
    }

    async fn rest(&mut self) -> Fault {
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let told = self.server.shared.lines.notified();
            if let Some(Trouble::Line(fault)) = self.server.state().take(|trouble| matches!(trouble, Trouble::Line(_)))
            {
                return fault;
            }
            told.await;
        }
    }

    async fn mark_seen(&mut self, uids: &[Uid]) -> Result<(), Fault> {
        let mut state = self.server.state();
        state.deeds.push(Deed::MarkSeen(uids.to_vec()));
        if let Some(account) = state.accounts.get_mut(&self.user) {
            account.maildrop.see(uids);
        }
        Ok(())
    }

    async fn settle(&mut self, changes: &Changes) -> Settled {
        let mut state = self.server.state();
        state.deeds.push(Deed::Settle { delete: changes.delete.clone(), seen: changes.seen.clone() });
        if let Some(Trouble::Changed(fault)) = state.take(|trouble| matches!(trouble, Trouble::Changed(_))) {
            return Settled::Changed(fault);
        }
        let stay = state.take(|trouble| matches!(trouble, Trouble::Stay(..)));
        let Some(account) = state.accounts.get_mut(&self.user) else { return Settled::Changed(gone()) };
        if account.maildrop.uid_validity != self.uid_validity {
            return Settled::Changed(gone());
        }
        account.maildrop.see(&changes.seen);
        let Some(Trouble::Stay(stay, fault)) = stay else {
            account.maildrop.messages.retain(|uid, _| !changes.delete.contains(uid));
            return Settled::Done;
        };
        account.maildrop.messages.retain(|uid, _| stay.contains(uid) || !changes.delete.contains(uid));
        let left = changes.delete.iter().filter(|uid| account.maildrop.messages.contains_key(uid)).count();
        Settled::Partly { left, fault }
    }

    async fn leave(self) {
        self.server.state().deeds.push(Deed::Leave);
    }
}

impl Maildrop {
    fn see(&mut self, uids: &[Uid]) {
        for uid in uids {
            if let Some(mail) = self.messages.get_mut(uid) {
                mail.seen = true;
            }
        }
    }
}

fn gone() -> Fault {
    Fault::new(Verdict::Changed, "the mailbox is not the one that was listed")
}
