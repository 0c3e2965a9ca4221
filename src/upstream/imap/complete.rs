//! Proof that a listing is complete: what the server listed against what it says exists, until both agree.

use tracing::{error, warn};

use super::{
    ask::{self, fetch_some, sorted},
    conn::Conn,
    fault::Trouble,
    selected::Selected,
    tap::{Malformed, ROWS},
};
use crate::mail::{Message, Uid};

/// Makes sure that `rows` are all messages, and says which are shown and which could not be listed. Unless it is `certain`
/// that they exist, that their number is right proves nothing.
pub(super) async fn complete(
    conn: &mut Conn,
    selected: &Selected,
    mut rows: Vec<Message>,
    certain: bool,
) -> Result<(Vec<Message>, Vec<Uid>), Trouble> {
    let mut unlisted = Vec::new();
    let mut compared = selected.expunged;
    for round in 0..=ROUNDS {
        let old = rows.iter().filter(|row| selected.is_old(row.uid)).count() + unlisted.len();
        // Where something went since, a message that is missing and one that went look like none: the numbers agree.
        let stands = conn.view.expunged == compared && !conn.view.shrunk && (certain || round > 0);
        if stands && selected.is_all(&conn.view, old, rows.len() + unlisted.len()) {
            if rows.is_empty() && !unlisted.is_empty() {
                break; // That no message can be listed does not make an empty maildrop.
            }
            // What came after SELECT is for the next session; but only what EXISTS announced can have come.
            let ever = |exists: u32, expunged: u32| u64::from(exists) + u64::from(expunged);
            let now = ever(conn.view.exists.unwrap_or_default(), conn.view.expunged);
            let arrived = now.saturating_sub(ever(selected.exists, selected.expunged));
            if (rows.len() + unlisted.len() - old) as u64 <= arrived {
                rows.retain(|row| selected.is_old(row.uid));
            } else {
                warn!(uid_next = selected.uid_next, "the server has messages beyond its UIDNEXT");
            }
            return Ok((rows, unlisted));
        }
        if round == ROUNDS {
            break;
        }
        (compared, rows, unlisted) = reconcile(conn, selected, rows).await?;
    }
    let exists = conn.view.exists;
    error!(listed = rows.len(), unlisted = unlisted.len(), exists, "the mailbox cannot be listed whole");
    Err(Malformed("a listing that is not complete").into())
}

/// One round: what the server says exists now, against what it listed. With it, how many messages had been expunged when
/// the server was asked.
async fn reconcile(
    conn: &mut Conn,
    selected: &Selected,
    rows: Vec<Message>,
) -> Result<(u32, Vec<Message>, Vec<Uid>), Trouble> {
    let noop = conn.send("NOOP")?;
    // New ones included: one of them may have gone again.
    let search = ask::send(conn, "ALL")?;
    conn.finish(&noop).await?;
    let compared = conn.view.expunged;
    let found = ask::found(conn, search).await?;
    let mut rows: Vec<_> = rows.into_iter().filter(|row| found.binary_search(&row.uid).is_ok()).collect();
    let is_missing = |uid: &Uid| selected.is_old(*uid) && rows.binary_search_by_key(uid, |row| row.uid).is_err();
    let missing: Vec<_> = found.into_iter().filter(is_missing).collect();
    let unlisted = recover(conn, &missing, &mut rows).await?;
    Ok((compared, sorted(rows), unlisted))
}

/// Adds what is missing, and says which messages cannot be listed. One that cannot be read must not hide those behind it
/// (Yahoo), so a set that is refused is asked for by halves.
async fn recover(conn: &mut Conn, missing: &[Uid], rows: &mut Vec<Message>) -> Result<Vec<Uid>, Trouble> {
    let together = if missing.len() > UNLISTED { SET } else { 1 };
    let mut sets: Vec<_> = missing.chunks(together).rev().map(<[Uid]>::to_vec).collect();
    let mut unlisted = Vec::new();
    let mut refusals = 0;
    let mut last_refusal = None;
    while let Some(mut left) = sets.pop() {
        let asked = left.len();
        conn.view.message_limit = None;
        let set = left.iter().map(Uid::to_string).collect::<Vec<_>>().join(",");
        let (given, refusal) = fetch_some(conn, &set).await?;
        let is_limited = conn.view.message_limit.take().is_some();
        left.retain(|uid| given.binary_search_by_key(uid, |row| row.uid).is_err());
        rows.extend(given);
        if rows.len() > ROWS as usize {
            return Err(Malformed("more messages than a maildrop holds").into());
        }
        match left[..] {
            [uid] if asked == 1 => unlisted.push(uid),
            _ if refusal.is_some() => {
                refusals += 1;
                let second = left.split_off(left.len() / 2);
                sets.extend([second, left].into_iter().filter(|half| !half.is_empty()));
            }
            _ if is_limited && left.len() < asked => sets.extend((!left.is_empty()).then_some(left)),
            _ => {}
        }
        last_refusal = refusal.or(last_refusal);
        if unlisted.len() > UNLISTED || refusals > REFUSALS {
            return Err(last_refusal.unwrap_or_else(|| Malformed("a listing that is not complete").into()));
        }
    }
    // A second time: what was in the way of the first may have passed while the others came.
    let mut hidden = Vec::new();
    for uid in unlisted {
        let (given, refusal) = fetch_some(conn, &uid.to_string()).await?;
        last_refusal = refusal.or(last_refusal);
        if !given.iter().any(|row| row.uid == uid) {
            warn!(%uid, "the server lists this message but does not give its size: it is not shown");
            hidden.push(uid);
        }
        rows.extend(given);
    }
    match last_refusal {
        // That no message can be listed does not make an empty maildrop.
        Some(refusal) if rows.is_empty() => Err(refusal),
        _ => Ok(hidden),
    }
}

/// How often a listing that does not add up is reconciled.
pub(super) const ROUNDS: usize = 3;

/// So many messages that cannot be listed are left out. No more than these are asked for one by one from the outset.
const UNLISTED: usize = 10;

/// So many sets that are refused are asked for by halves: to find as many messages as are left out takes fewer.
const REFUSALS: usize = 120;

/// UIDs a command when a set cannot be written as ranges: at most 11 octets each, so 8,000 octets hold them.
const SET: usize = 700;
