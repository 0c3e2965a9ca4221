//! How messages are removed, and whether a client may ask for it at all.

use std::sync::atomic::Ordering::Relaxed;

use super::{OnDelete, Server, conn::Conn, name};
use crate::mail::Deletion;

/// How messages are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// They are flagged `\Deleted` and expunged by UID (RFC 4315).
    Expunge,
    /// They are moved to this mailbox, given as a quoted string (RFC 6851).
    Move(String),
    /// They are flagged, and hidden by a keyword.
    Hide,
    /// They are not.
    Nothing,
}

/// The keyword that hides a message from POP3 sessions.
pub(super) const KEYWORD: &str = "$POP3Deleted";

/// Whether messages may have to go to the trash, so that it must be found.
pub(super) fn looks_for_trash(server: &Server, conn: &Conn) -> bool {
    let expunges = can_expunge(server, conn);
    let gmail = conn.capabilities.gmail && server.settings.on_delete.is_none();
    server.settings.on_delete != Some(OnDelete::Ignore) && conn.capabilities.uid_move && (!expunges || gmail)
}

fn can_expunge(server: &Server, conn: &Conn) -> bool {
    conn.capabilities.uid_expunge && !server.expunge_refused.load(Relaxed)
}

/// How this mailbox's messages are removed, and whether a client may ask for it at all: what QUIT cannot keep, DELE must
/// not promise.
pub(super) fn removal(server: &Server, conn: &Conn, trash: Option<String>) -> (Removal, Deletion) {
    let gmail = conn.capabilities.gmail && server.settings.on_delete.is_none();
    if server.settings.on_delete == Some(OnDelete::Ignore) {
        return (Removal::Nothing, Deletion::Allowed);
    }
    if conn.view.read_only || !conn.view.keeps("\\Deleted") {
        return (Removal::Nothing, Deletion::ReadOnly);
    }
    if can_expunge(server, conn) && !gmail {
        return (Removal::Expunge, Deletion::Allowed);
    }
    // In the trash itself there is nowhere to move to.
    let here = name::mailbox(&server.settings.mailbox);
    let is_elsewhere = |trash: &String| *trash != here && !(here == "INBOX" && trash.eq_ignore_ascii_case("\"INBOX\""));
    if let Some(trash) = trash.map(|trash| name::quoted(&trash)).filter(is_elsewhere) {
        return (Removal::Move(trash), Deletion::Allowed);
    }
    if conn.view.keeps(KEYWORD) && !conn.capabilities.gmail {
        return (Removal::Hide, Deletion::Allowed);
    }
    (Removal::Nothing, Deletion::Unsupported)
}
