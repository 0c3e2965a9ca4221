//! What QUIT asks for, carried out and proved. Every step can be repeated without harm: it touches
//! only messages whose DELE was accepted, by UID, under the UIDVALIDITY they were listed with.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::{
    ask,
    conn::{Conn, Tag},
    fault::{Outcome, Trouble},
    mailbox::ImapMailbox,
    removal::{KEYWORD, Removal},
    sets::{UidSet, sets},
    tap::{Found, Malformed},
};
use crate::{
    mail::{Changes, Message, Uid},
    upstream::{Fault, Settled, Verdict},
};

/// Carries out `changes`.
pub(super) async fn settle(mailbox: &mut ImapMailbox, changes: &Changes) -> Settled {
    let deadline = Instant::now() + UPDATE;
    // What was fetched ahead and is still to come must not cost much of the time of the update: a new line is quicker.
    if let Some(conn) = &mut mailbox.conn
        && timeout(LEFTOVER, conn.quiesce()).await.is_err()
    {
        mailbox.hang_up();
    }
    let mut left = if mailbox.ground.removal == Removal::Nothing { Vec::new() } else { changes.delete.clone() };
    let seen = if mailbox.ground.seen { changes.seen.as_slice() } else { &[] };
    if left.is_empty() {
        match timeout_at(deadline, mark_seen(mailbox, seen)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => info!(cause = %fault, "messages could not be flagged as seen"),
            Err(_) => mailbox.hang_up(),
        }
        return Settled::Done;
    }
    let mut kept = Vec::new();
    match timeout_at(deadline, update(mailbox, &mut left, &mut kept, seen)).await {
        Ok(settled) => settled,
        Err(_) => {
            // What was asked for is carried out nevertheless, as a whole rather than by halves: flagged and not expunged, say.
            // Nobody waits for it, not even a process that ends: by then all of it is on its way.
            if let Some(conn) = mailbox.conn.take() {
                tokio::spawn(conn.see_through(UPDATE));
            }
            Settled::Partly {
                left: left.len() + kept.len(),
                fault: Fault::new(Verdict::Passing, "the update took too long"),
            }
        }
    }
}

/// Flags messages `\Seen`.
pub(super) async fn mark_seen(mailbox: &mut ImapMailbox, uids: &[Uid]) -> Result<(), Fault> {
    for set in sets(uids, &mailbox.known()) {
        if let Err(trouble) = mailbox.line().await?.run(&seen_command(&set)).await {
            return Err(mailbox.fault(trouble));
        }
    }
    Ok(())
}

/// Removes `left`, but for what goes to `kept`; what is in either when this ends, or is given up, may still be there.
async fn update(mailbox: &mut ImapMailbox, left: &mut Vec<Uid>, kept: &mut Vec<Uid>, seen: &[Uid]) -> Settled {
    let mut result = pass(mailbox, left, kept, seen).await;
    if let Err(fault) = &result
        && mailbox.is_lost()
        && mailbox.may_reconnect()
    {
        // What was asked for may or may not have happened. A new line shows; what it shows done is done.
        info!(cause = %fault, "the line broke in the update, trying once more");
        result = pass(mailbox, left, kept, &[]).await;
    }
    left.append(kept);
    match result {
        // Each set that is not in it any more was proved to be gone, whatever happened afterwards.
        _ if left.is_empty() => Settled::Done,
        Ok(()) => Settled::Partly {
            left: left.len(),
            fault: Fault::new(Verdict::Passing, "some messages are not what they were when they were listed"),
        },
        Err(fault) if mailbox.is_changed() && !mailbox.has_removed => Settled::Changed(fault),
        Err(fault) => Settled::Partly { left: left.len(), fault },
    }
}

/// One pass over what is left. Messages that are not what they were go to `kept`.
async fn pass(mailbox: &mut ImapMailbox, left: &mut Vec<Uid>, kept: &mut Vec<Uid>, seen: &[Uid]) -> Result<(), Fault> {
    mailbox.line().await?;
    let doubted = doubted(mailbox, left);
    if !doubted.is_empty() {
        let (gone, mut changed) = verify(mailbox, &doubted).await?;
        (mailbox.must_verify, mailbox.remembered) = (false, None);
        left.retain(|uid| gone.binary_search(uid).is_err() && changed.binary_search(uid).is_err());
        kept.append(&mut changed);
    }
    let known = mailbox.known();
    let mut flagged = Vec::new();
    for set in sets(seen, &known) {
        match mailbox.line_in_use()?.send(&seen_command(&set)) {
            Ok(tag) => flagged.push(tag),
            Err(trouble) => return Err(mailbox.fault(trouble)),
        }
    }
    for set in sets(left, &known) {
        remove(mailbox, &set, &known).await?;
        left.drain(..set.uids.len()); // The sets are what is left, in order.
    }
    // The flags went along with the rest; that they could not be set is no reason to call the removal failed.
    for tag in flagged {
        if let Err(trouble) = mailbox.line_in_use()?.finish(&tag).await {
            info!(%trouble, "messages could not be flagged as seen");
        }
    }
    Ok(())
}

/// Those of the messages that may not be what they were when they were listed: after a reconnection all; of those that were
/// listed as an earlier session knew them those that have not come whole in this one.
fn doubted(mailbox: &mut ImapMailbox, left: &[Uid]) -> Vec<Uid> {
    if mailbox.must_verify {
        return left.to_vec();
    }
    let Some(last) = mailbox.remembered else { return Vec::new() };
    mailbox.proved.sort_unstable();
    let is_proved = |uid: &Uid| mailbox.proved.binary_search(uid).is_ok();
    left.iter().copied().filter(|uid| *uid <= last && !is_proved(uid)).collect()
}

/// Removes the messages of one set, and proves it. `known` are all messages that exist, ascending.
async fn remove(mailbox: &mut ImapMailbox, set: &UidSet, known: &[Uid]) -> Result<(), Fault> {
    let mut left = usize::MAX;
    let mut again = true;
    loop {
        let removal = mailbox.ground.removal.clone();
        mailbox.has_removed = true;
        if removal == Removal::Hide {
            mailbox.server.hides.store(true, Ordering::Relaxed);
        }
        // On a new line the numbers are not those of the listing.
        let listed = if mailbox.is_first_line() { known } else { &[] };
        let heard = mailbox.ground.expunged;
        let attempt = match attempt(mailbox.line_in_use()?, &removal, set, (listed, heard)).await {
            Ok(attempt) => attempt,
            Err(trouble) => return Err(mailbox.fault(trouble)),
        };
        if attempt.left == 0 {
            return Ok(());
        }
        let pause = attempt.troubles.iter().flatten().find_map(Trouble::pause);
        if let (Some(pause), true) = (pause, again) {
            again = false;
            sleep(pause).await;
            continue;
        }
        if let (Removal::Expunge, Some(refusal)) = (&removal, attempt.expunge_refused()) {
            warn!(refusal, "the server offers UIDPLUS but refuses UID EXPUNGE");
            // What one user may not do, others may; a server that does not know the command has it for nobody.
            if matches!(attempt.troubles.get(1), Some(Some(Trouble::Bad(_)))) {
                mailbox.server.expunge_refused.store(true, Ordering::Relaxed);
            }
            if mailbox.ground.hideable {
                mailbox.ground.removal = Removal::Hide;
                continue;
            }
        }
        // A limited server needs as many turns as it takes; any other gets one more.
        let progress = attempt.limited && attempt.left < left;
        left = attempt.left;
        if !progress && !std::mem::take(&mut again) {
            return Err(match attempt.troubles.into_iter().flatten().next() {
                Some(trouble) => mailbox.fault(trouble),
                None => {
                    Fault::new(Verdict::Passing, "the server confirmed the removal, but the messages are still there")
                }
            });
        }
    }
}

/// One try, in one flight: flag, expunge, and ask what is left.
struct Attempt {
    /// How many messages of the set are still there.
    left: usize,
    /// The server did only part of it, and says so.
    limited: bool,
    /// What the commands met with, in order.
    troubles: Vec<Option<Trouble>>,
}

impl Attempt {
    /// The flag was set but the expunging is refused for good: not for a reason that passes.
    fn expunge_refused(&self) -> Option<String> {
        match self.troubles.as_slice() {
            [None, Some(trouble)] if trouble.pause().is_some() => None,
            [None, Some(trouble @ Trouble::Bad(_))] => Some(trouble.to_string()),
            [None, Some(trouble @ Trouble::No(outcome))] if outcome.code.is_empty() => Some(trouble.to_string()),
            _ => None,
        }
    }
}

/// All messages were `listed` when so many had been `heard` to be expunged.
async fn attempt(
    conn: &mut Conn,
    removal: &Removal,
    set: &UidSet,
    (listed, heard): (&[Uid], u32),
) -> Result<Attempt, Trouble> {
    let UidSet { text: set, uids } = set;
    let mut criteria = format!("UID {set}");
    let commands = match removal {
        Removal::Expunge => {
            vec![format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)"), format!("UID EXPUNGE {set}")]
        }
        Removal::Move(trash) => vec![format!("UID MOVE {set} {trash}")],
        Removal::Hide => {
            criteria.push_str(" UNKEYWORD ");
            criteria.push_str(KEYWORD);
            vec![format!("UID STORE {set} +FLAGS.SILENT (\\Deleted {KEYWORD})")]
        }
        Removal::Nothing => Vec::new(),
    };
    conn.view.message_limit = None;
    let mut tags = Vec::new();
    for command in &commands {
        tags.push(conn.send(command)?);
    }
    let search = ask_count(conn, &criteria)?;
    let mut troubles = Vec::new();
    let mut limited = false;
    for tag in &tags {
        match conn.finish(tag).await {
            Ok(outcome) => {
                limited |= outcome.message_limit().is_some();
                troubles.push(None);
            }
            Err(trouble @ (Trouble::No(_) | Trouble::Bad(_))) => troubles.push(Some(trouble)),
            Err(trouble) => return Err(trouble),
        }
    }
    limited |= conn.view.message_limit.take().is_some();
    // Dovecot searches while it is still expunging: what was left then need not be left now. What was gone is gone, and what
    // it said to have expunged is.
    let overtaken = conn.has_reply(&search);
    let outcome = conn.finish(&search).await;
    let mut left = count(conn, outcome, &criteria).await;
    if overtaken && left.as_ref().is_ok_and(|left| *left > 0) && conn.view.are_expunged(uids, listed, heard) {
        left = Ok(0);
    }
    if overtaken && left.as_ref().is_ok_and(|left| *left > 0) {
        let search = ask_count(conn, &criteria)?;
        let outcome = conn.finish(&search).await;
        left = count(conn, outcome, &criteria).await;
    }
    let left = match left {
        Ok(left) => left.min(uids.len()),
        // Nobody knows what is left: the refusal that caused it says more than the refused question.
        Err(trouble) => return Err(troubles.into_iter().flatten().next().unwrap_or(trouble)),
    };
    match conn.view.changed {
        Some(why) => Err(Trouble::Changed(why)),
        None => Ok(Attempt { left, limited, troubles }),
    }
}

/// Asks how many messages match.
fn ask_count(conn: &mut Conn, criteria: &str) -> Result<Tag, Trouble> {
    let options = if conn.capabilities.esearch { "RETURN (COUNT) " } else { "" };
    let tag = conn.send(&format!("UID SEARCH {options}{criteria}"))?;
    conn.aside().found = Some(Found::default());
    Ok(tag)
}

/// The answer; a server that promised to count but did not is asked in the old way. A limited search is a doubt.
async fn count(conn: &mut Conn, outcome: Result<Outcome, Trouble>, criteria: &str) -> Result<usize, Trouble> {
    let found = conn.aside().found.take().unwrap_or_default();
    let outcome = outcome?;
    if outcome.message_limit().is_some() || conn.view.message_limit.take().is_some() {
        return Err(Malformed("a search result that is limited").into());
    }
    match found.count {
        Some(count) => Ok(count as usize),
        None if !conn.capabilities.esearch => Ok(usize::try_from(found.len()).unwrap_or(usize::MAX)),
        None => {
            conn.capabilities.esearch = false;
            Ok(ask::search(conn, criteria).await?.len())
        }
    }
}

/// Compares the messages with what they were when they were listed. Those that are gone, and those that have become
/// something else; both ascend.
async fn verify(mailbox: &mut ImapMailbox, left: &[Uid]) -> Result<(Vec<Uid>, Vec<Uid>), Fault> {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut unread = 0;
    for set in sets(left, &mailbox.known()) {
        let (here, absent) = match still_there(mailbox.line_in_use()?, set).await {
            Ok(found) => found,
            Err(trouble) => return Err(mailbox.fault(trouble)),
        };
        gone.extend(absent);
        for (uid, message) in here {
            match message {
                Some(message) if mailbox.snapshot.find(uid) == Some(message) => continue,
                Some(_) => warn!(%uid, "the message has not the size with which it was listed: it is not deleted"),
                None => unread += 1,
            }
            changed.push(uid);
        }
    }
    if unread > 0 {
        warn!(messages = unread, "what messages are now could not be read: they are not deleted");
    }
    if !changed.is_empty() {
        mailbox.forget();
    }
    Ok((gone, changed))
}

/// The messages of a set that are there, as far as the server lists them now, and those that are gone. What a listing leaves
/// out is gone only if a search does not find it either.
async fn still_there(conn: &mut Conn, set: UidSet) -> Result<(Vec<(Uid, Option<Message>)>, Vec<Uid>), Trouble> {
    // One that cannot be read any more must not keep the others.
    let (rows, refusal) = ask::fetch_some(conn, &set.text).await?;
    if let Some(refusal) = refusal {
        info!(%refusal, listed = rows.len(), "messages could not be compared with what they were");
    }
    let row = |uid: Uid| rows.binary_search_by_key(&uid, |row| row.uid).ok().map(|at| rows[at]);
    let found = match set.uids.iter().all(|uid| row(*uid).is_some()) {
        true => set.uids.clone(),
        false => ask::search(conn, &format!("UID {}", set.text)).await?,
    };
    let is_here = |uid: &Uid| row(*uid).is_some() || found.binary_search(uid).is_ok();
    let (here, gone): (Vec<_>, Vec<_>) = set.uids.into_iter().partition(is_here);
    Ok((here.into_iter().map(|uid| (uid, row(uid))).collect(), gone))
}

fn seen_command(set: &UidSet) -> String {
    format!("UID STORE {} +FLAGS.SILENT (\\Seen)", set.text)
}

/// So long may it take to receive what nobody wants any more.
const LEFTOVER: Duration = Duration::from_secs(10);

/// So long may an UPDATE take; clients wait about a minute for the answer to QUIT.
const UPDATE: Duration = Duration::from_secs(60);
