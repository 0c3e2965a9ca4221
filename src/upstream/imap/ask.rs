//! Questions about messages, and their answers: sizes by UID, and UIDs by a search. An answer is complete, or it is an error.

use tracing::warn;

use super::{
    conn::{Conn, Tag},
    fault::Trouble,
    tap::{Found, Malformed, ROWS},
};
use crate::mail::{Message, Uid};

/// Sizes by UID set.
pub(super) async fn fetch(conn: &mut Conn, set: &str) -> Result<Vec<Message>, Trouble> {
    let tag = conn.send(&format!("UID FETCH {set} (RFC822.SIZE)"))?;
    conn.aside().rows = Some(Vec::new());
    let fetched = conn.finish(&tag).await;
    let rows = conn.aside().rows.take().unwrap_or_default();
    fetched.map(|_| sorted(rows))
}

/// The UIDs that a search finds, ascending. It is complete, or it is an error.
pub(super) async fn search(conn: &mut Conn, criteria: &str) -> Result<Vec<Uid>, Trouble> {
    let tag = send(conn, criteria)?;
    found(conn, &tag).await
}

/// Sends a search.
pub(super) fn send(conn: &mut Conn, criteria: &str) -> Result<Tag, Trouble> {
    let options = if conn.capabilities.esearch { "RETURN (ALL) " } else { "" };
    conn.view.message_limit = None; // One from before was another command's.
    let tag = conn.send(&format!("UID SEARCH {options}{criteria}"))?;
    conn.aside().found = Some(Found::default());
    Ok(tag)
}

/// What it finds, ascending.
pub(super) async fn found(conn: &mut Conn, tag: &Tag) -> Result<Vec<Uid>, Trouble> {
    let outcome = conn.finish(tag).await;
    let found = conn.aside().found.take().unwrap_or_default();
    if let Some(lowest) = outcome?.message_limit().or_else(|| conn.view.message_limit.take()) {
        warn!(lowest, "the server limits searches");
        return Err(Malformed("a search result that is limited").into());
    }
    // Some tell what went meanwhile behind the result.
    let ever = conn.view.exists.unwrap_or_default().saturating_add(conn.view.expunged);
    if found.len() > u64::from(ever.min(ROWS)) {
        return Err(Malformed("a search result with more messages than there are").into());
    }
    let mut uids: Vec<_> = found.ranges.iter().flat_map(|(first, last)| *first..=*last).filter_map(Uid::new).collect();
    uids.sort_unstable();
    uids.dedup();
    Ok(uids)
}

/// Rows in the order of their UIDs, one for each.
pub(super) fn sorted(mut rows: Vec<Message>) -> Vec<Message> {
    // The last word on a message counts, so the order of arrival is turned before equal UIDs are merged.
    rows.reverse();
    rows.sort_by_key(|row| row.uid);
    rows.dedup_by_key(|row| row.uid);
    rows
}
