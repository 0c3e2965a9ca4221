//! Questions about messages, and their answers: sizes by UID, and UIDs by a search. An answer is complete, or it is an error.

use super::{
    conn::{Conn, Tag},
    fault::Trouble,
    tap::{Found, Malformed, ROWS},
};
use crate::mail::{Message, Uid};

/// Sizes by UID set.
pub(super) async fn fetch(conn: &mut Conn, set: &str) -> Result<Vec<Message>, Trouble> {
    match fetch_some(conn, set).await? {
        (rows, None) => Ok(rows),
        (_, Some(refusal)) => Err(refusal),
    }
}

/// The same as far as the server gives them, and its NO if it gives no more.
pub(super) async fn fetch_some(conn: &mut Conn, set: &str) -> Result<(Vec<Message>, Option<Trouble>), Trouble> {
    let tag = conn.send(&format!("UID FETCH {set} (RFC822.SIZE)"))?;
    conn.aside().rows = Some(Vec::new());
    let fetched = conn.finish(&tag).await;
    let rows = sorted(conn.aside().rows.take().unwrap_or_default());
    match fetched {
        Ok(_) => Ok((rows, None)),
        Err(refusal @ Trouble::No(_)) if refusal.pause().is_none() => Ok((rows, Some(refusal))),
        Err(trouble) => Err(trouble),
    }
}

/// The UIDs that a search finds, ascending. It is complete, or it is an error.
pub(super) async fn search(conn: &mut Conn, criteria: &str) -> Result<Vec<Uid>, Trouble> {
    let search = send(conn, criteria)?;
    found(conn, search).await
}

/// A search that has been sent.
pub(super) struct Search<'a> {
    criteria: &'a str,
    tag: Tag,
}

/// Sends a search.
pub(super) fn send<'a>(conn: &mut Conn, criteria: &'a str) -> Result<Search<'a>, Trouble> {
    Ok(Search { criteria, tag: ask(conn, criteria)? })
}

/// What it finds, ascending. Where the server looks at only so many messages a command (RFC 9738), it is asked for the rest.
pub(super) async fn found(conn: &mut Conn, search: Search<'_>) -> Result<Vec<Uid>, Trouble> {
    let Search { criteria, mut tag } = search;
    let mut uids = Vec::new();
    let mut lowest = None;
    let mut looks = 0_u32;
    while let Some(limit) = look(conn, &tag, &mut uids).await?.filter(|limit| *limit != 1) {
        looks += 1;
        // Each of them looks at one message at least.
        if limit == 0 || lowest.is_some_and(|lowest| limit >= lowest) || looks > ever(conn) {
            return Err(Malformed("a limited search that leads nowhere").into());
        }
        lowest = Some(limit);
        tag = ask(conn, &format!("UID 1:{} {criteria}", limit - 1))?;
    }
    uids.sort_unstable();
    uids.dedup();
    Ok(uids)
}

fn ask(conn: &mut Conn, criteria: &str) -> Result<Tag, Trouble> {
    let options = if conn.capabilities.esearch { "RETURN (ALL) " } else { "" };
    conn.view.message_limit = None; // One from before was another command's.
    let tag = conn.send(&format!("UID SEARCH {options}{criteria}"))?;
    conn.aside().found = Some(Found::default());
    Ok(tag)
}

/// Adds what one command has found, and says down to which message it has looked, if not at all.
async fn look(conn: &mut Conn, tag: &Tag, uids: &mut Vec<Uid>) -> Result<Option<u32>, Trouble> {
    let outcome = conn.finish(tag).await;
    let found = conn.aside().found.take().unwrap_or_default();
    let limit = outcome?.message_limit().or_else(|| conn.view.message_limit.take());
    if found.len().saturating_add(uids.len() as u64) > u64::from(ever(conn)) {
        return Err(Malformed("a search result with more messages than there are").into());
    }
    uids.extend(found.ranges.iter().flat_map(|(first, last)| *first..=*last).filter_map(Uid::new));
    Ok(limit)
}

/// So many messages there are or were. Some servers tell what went meanwhile behind the result of a search.
fn ever(conn: &Conn) -> u32 {
    conn.view.exists.unwrap_or_default().saturating_add(conn.view.expunged).min(ROWS)
}

/// Rows in the order of their UIDs, one for each.
pub(super) fn sorted(mut rows: Vec<Message>) -> Vec<Message> {
    // The last word on a message counts, so the order of arrival is turned before equal UIDs are merged.
    rows.reverse();
    rows.sort_by_key(|row| row.uid);
    rows.dedup_by_key(|row| row.uid);
    rows
}
