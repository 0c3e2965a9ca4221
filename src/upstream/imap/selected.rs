//! The mailbox at the moment it was selected, against which a listing is counted.

use super::{
    fault::{Outcome, Trouble},
    tap::{Malformed, ROWS},
    view::View,
};
use crate::mail::{Uid, UidValidity};

/// The mailbox at the moment it was selected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected {
    pub(super) exists: u32,
    pub(super) uid_validity: Option<UidValidity>,
    pub(super) uid_next: Option<u32>,
    pub(super) expunged: u32,
}

impl Selected {
    /// What SELECT said, whose tagged OK is `outcome`.
    pub(super) fn of(view: &mut View, outcome: &Outcome) -> Result<Self, Trouble> {
        view.selected = true;
        view.read_only |= outcome.code == "READ-ONLY";
        let exists = view.exists.ok_or(Malformed("no EXISTS for the selected mailbox"))?;
        if exists > ROWS {
            return Err(Trouble::Unfit("the mailbox has more messages than a maildrop may hold"));
        }
        let uid_validity = match view.uid_validity {
            Some(0) => return Err(Malformed("a UIDVALIDITY of 0").into()),
            _ if view.uid_not_sticky => None,
            validity => validity.and_then(UidValidity::new),
        };
        // Some say 0 where they do not know.
        let uid_next = view.uid_next.filter(|next| *next > 0);
        Ok(Self { exists, uid_validity, uid_next, expunged: view.expunged })
    }

    /// Whether a message with this UID was there when the mailbox was selected.
    pub(super) fn is_old(&self, uid: Uid) -> bool {
        self.uid_next.is_none_or(|next| uid.value() < next)
    }

    /// Whether the numbers agree: all messages against the latest EXISTS, or the old ones against what SELECT said less
    /// what was expunged since.
    pub(super) fn is_all(&self, view: &View, old: usize, all: usize) -> bool {
        let expunged = view.expunged.saturating_sub(self.expunged);
        view.exists.is_some_and(|exists| exists as usize == all)
            || self.uid_next.is_some() && self.exists.checked_sub(expunged).is_some_and(|left| left as usize == old)
    }
}
