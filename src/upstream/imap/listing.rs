//! Selecting the mailbox and listing it: SELECT and the sizes of all messages in one flight, then proof that none is
//! missing. A listing is complete or it is an error. What is known from earlier is not asked for again, if its last
//! message shows that it is still as it was.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Deleted, Server,
    ask::{fetch_some, search, sorted},
    complete::{ROUNDS, complete},
    conn::{Conn, Tag},
    fault::{Outcome, Trouble},
    name,
    removal::{self, KEYWORD, Removal},
    selected::Selected,
    tap::{Malformed, Placed, ROWS},
};
use crate::{
    mail::{Deletion, Message, Snapshot, Uid, UidValidity},
    upstream::cache::Known,
};

/// A mailbox that has been listed, and the line it is selected on.
pub(super) struct Listing {
    pub(super) conn: Conn,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ground: Ground,
    /// What the next listing may start from.
    pub(super) known: Option<Known>,
    /// Messages up to this one were known before, and only the last of them has been asked for again.
    pub(super) remembered: Option<Uid>,
    /// Messages that are hidden because their size cannot be had.
    pub(super) unlisted: Vec<Uid>,
}

/// How a mailbox is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// By SELECT, to work in it.
    Work,
    /// By EXAMINE, to look at it: it stays as it is, `\Recent` included.
    Look,
}

/// What a session stands on beside the listing: what must not change, and what is possible.
#[derive(Debug)]
pub(super) struct Ground {
    /// UIDVALIDITY as the server gave it.
    pub(super) uid_validity: Option<UidValidity>,
    /// UIDNEXT, which never goes back under the same UIDVALIDITY.
    pub(super) uid_next: Option<u32>,
    /// Messages that exist but are not shown, ascending. No range may cover them.
    pub(super) hidden: Vec<Uid>,
    /// How many messages had been expunged on the line when all others were these and the shown ones.
    pub(super) expunged: u32,
    /// How messages are removed.
    pub(super) removal: Removal,
    /// The keyword that hides a message may be set.
    pub(super) hideable: bool,
    /// `\Seen` may be set.
    pub(super) seen: bool,
}

/// Opens and lists the mailbox. What is `known` is given up where it leads astray.
pub(super) async fn open(
    server: &Server,
    mut conn: Conn,
    access: Access,
    known: &mut Option<Arc<Known>>,
) -> Result<Listing, Trouble> {
    let settings = &server.settings;
    let looks_for_trash = removal::looks_for_trash(server, &conn);
    let command = if access == Access::Work { "SELECT" } else { "EXAMINE" };
    let select = conn.send(&format!("{command} {}", name::mailbox(&settings.mailbox)))?;
    // That the last known message comes again costs a line and proves more than it costs, see `continued`.
    let mut remembered = known.as_deref().and_then(Known::last);
    let fetch = ask_rows(&mut conn, remembered)?;
    let list = match looks_for_trash {
        true => {
            conn.aside().trash = Some(String::new());
            let special_use = if conn.capabilities.special_use { " RETURN (SPECIAL-USE)" } else { "" };
            Some(conn.send(&format!("LIST \"\" \"*\"{special_use}"))?)
        }
        false => None,
    };
    let outcome = conn.finish(&select).await?;
    let selected = Selected::of(&mut conn.view, &outcome)?;
    if access == Access::Look {
        conn.view.suppose_writable();
    }
    let (messages, mut unlisted) = all(&mut conn, &selected, &fetch, known, &mut remembered).await?;
    let listed = match list {
        Some(list) => Some(conn.finish(&list).await),
        None => None,
    };
    let trash = match listed {
        // A server that refuses to say where the trash is has none for us.
        None | Some(Err(Trouble::No(_) | Trouble::Bad(_))) => None,
        Some(Ok(_)) => conn.aside().trash.take(),
        Some(Err(trouble)) => return Err(trouble),
    };
    let removal = removal::removal(server, &conn, trash.filter(|trash| !trash.is_empty()));
    let (snapshot, ground, known) =
        shown(server, &mut conn, &selected, known.as_deref(), messages, &mut unlisted, removal).await?;
    Ok(Listing { conn, snapshot, ground, known, remembered, unlisted })
}

/// A mailbox that has been listed again: what there is now, what the next listing may start from, and up to where it was
/// known before.
pub(super) struct Renewed {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ground: Ground,
    pub(super) known: Option<Known>,
    pub(super) remembered: Option<Uid>,
}

/// Lists a mailbox that has stayed selected since `ground` was found. UIDNEXT is not told again; that the number of rows is
/// that of EXISTS says that nothing is missing.
pub(super) async fn renew(
    server: &Server,
    conn: &mut Conn,
    ground: &Ground,
    deletion: Deletion,
    mut known: Option<Arc<Known>>,
) -> Result<Renewed, Trouble> {
    if ground.removal != Removal::Expunge || server.hides.load(Relaxed) {
        // Another session may have had to hide messages since SELECT listed the flags.
        conn.aside().flags = None;
    }
    let mut remembered = known.as_deref().and_then(Known::last);
    let noop = conn.send("NOOP")?;
    let fetch = ask_rows(conn, remembered)?;
    timeout(SIGN_OF_LIFE, conn.finish(&noop)).await.map_err(|_| Trouble::Silent("a line was taken up again"))??;
    let selected = Selected {
        exists: conn.view.exists.ok_or(Malformed("no EXISTS for the selected mailbox"))?,
        uid_validity: ground.uid_validity,
        uid_next: None,
        expunged: conn.view.expunged,
    };
    let (messages, mut unlisted) = all(conn, &selected, &fetch, &mut known, &mut remembered).await?;
    let removal = (ground.removal.clone(), deletion);
    let (snapshot, new, known) =
        shown(server, conn, &selected, known.as_deref(), messages, &mut unlisted, removal).await?;
    if conn.view.read_only && ground.removal != Removal::Nothing {
        return Err(Trouble::Changed("it is read-only now"));
    }
    Ok(Renewed { snapshot, ground: Ground { uid_next: ground.uid_next, ..new }, known, remembered })
}

/// Leaves out what flags hide, and says what the session stands on and what the next listing may start from.
async fn shown(
    server: &Server,
    conn: &mut Conn,
    selected: &Selected,
    known: Option<&Known>,
    mut messages: Vec<Message>,
    unlisted: &mut Vec<Uid>,
    (removal, deletion): (Removal, Deletion),
) -> Result<(Arc<Snapshot>, Ground, Option<Known>), Trouble> {
    let mut expunged = conn.view.expunged;
    let mut unwanted = hidden_by_flags(server, conn, &removal).await?;
    for _ in 0..ROUNDS {
        if conn.view.expunged == expunged {
            break;
        }
        // What was removed before the search was found by no flag, and may be what was hidden from clients so far.
        (messages, *unlisted) = complete(conn, selected, messages, true).await?;
        expunged = conn.view.expunged;
        unwanted = hidden_by_flags(server, conn, &removal).await?;
    }
    let mut hidden = unlisted.clone();
    // Flags change without a trace in what is compared, so that hidden messages are remembered like all others.
    let all = (!unwanted.is_empty()).then(|| messages.clone());
    let is_listed = unlisted.is_empty() && messages.iter().all(|message| selected.is_old(message.uid));
    messages.retain(|message| {
        let shown = unwanted.binary_search(&message.uid).is_err();
        hidden.extend((!shown).then_some(message.uid));
        shown
    });
    hidden.sort_unstable();
    if let Some(why) = conn.view.changed {
        return Err(Trouble::Changed(why)); // Of which mailbox this is the listing nobody knows.
    }
    let ground = Ground {
        uid_validity: selected.uid_validity,
        uid_next: selected.uid_next,
        hidden,
        expunged,
        removal,
        hideable: conn.view.keeps(KEYWORD),
        seen: !conn.view.read_only && conn.view.keeps("\\Seen"),
    };
    let snapshot = Snapshot::new(selected.uid_validity, deletion, messages);
    // Sessions of one mailbox share what is the same.
    let snapshot = match known.map(Known::listing).filter(|known| ***known == snapshot) {
        Some(same) => Arc::clone(same),
        None => Arc::new(snapshot),
    };
    let listed = match all {
        None => Arc::clone(&snapshot),
        Some(all) => Arc::new(Snapshot::new(selected.uid_validity, deletion, all)),
    };
    let known = is_listed.then(|| Known::new(listed, selected.uid_next)).flatten();
    conn.relax();
    Ok((snapshot, ground, known))
}

/// Asks for the sizes of all messages from one on, and for its place among all.
fn ask_rows(conn: &mut Conn, from: Option<Uid>) -> Result<Tag, Trouble> {
    let tag = conn.send(&format!("UID FETCH {}:* (RFC822.SIZE)", from.map_or(1, Uid::value)))?;
    conn.aside().rows = Some(Vec::new());
    conn.aside().place = from.map(|uid| Placed { uid, number: None });
    Ok(tag)
}

/// All messages: which are shown, and which could not be listed. They are what is `known` and the answer to `fetch`, or what
/// a first visitor is told, and then nothing is `remembered`.
async fn all(
    conn: &mut Conn,
    selected: &Selected,
    fetch: &Tag,
    known: &mut Option<Arc<Known>>,
    remembered: &mut Option<Uid>,
) -> Result<(Vec<Message>, Vec<Uid>), Trouble> {
    let fetched = conn.finish(fetch).await;
    let rows = conn.aside().rows.take().unwrap_or_default();
    let Some(past) = known else {
        let rows = cold(conn, selected, fetched, rows).await?;
        return complete(conn, selected, sorted(rows), true).await;
    };
    if let Some((rows, certain)) = continued(conn, selected, fetched, rows, past)? {
        match complete(conn, selected, sorted(rows), certain).await {
            // Only who knows something has to ask what is left of it, and not every server can tell.
            Err(trouble) if trouble.pause().is_none() => {
                *known = None;
                if !conn.is_usable() {
                    return Err(trouble);
                }
                info!(%trouble, "what was known of the mailbox is of no use: it is listed anew");
            }
            completed => return completed,
        }
    }
    *remembered = None;
    let tag = ask_rows(conn, None)?;
    let fetched = conn.finish(&tag).await;
    let rows = conn.aside().rows.take().unwrap_or_default();
    let rows = cold(conn, selected, fetched, rows).await?;
    complete(conn, selected, sorted(rows), true).await
}

/// The rows of a mailbox of which nothing was known, as far as the server gives them.
async fn cold(
    conn: &mut Conn,
    selected: &Selected,
    fetched: Result<Outcome, Trouble>,
    rows: Vec<Message>,
) -> Result<Vec<Message>, Trouble> {
    match fetched {
        Ok(_) => unlimited(conn, rows).await,
        // Of an empty mailbox nothing can be fetched, and some say so.
        Err(Trouble::No(_) | Trouble::Bad(_)) if selected.exists == 0 => Ok(Vec::new()),
        // One message that cannot be read must not hide the others (Yahoo); which it is, is found out later.
        Err(refusal @ Trouble::No(_)) if !rows.is_empty() || refusal.may_mean_one_message() => {
            warn!(%refusal, listed = rows.len(), "the listing was refused");
            Ok(rows)
        }
        Err(trouble) => Err(trouble),
    }
}

/// What was known, continued by the rows from its last message on; `None` if it must be forgotten. UIDs ascend with
/// message numbers and are never given twice (RFC 3501 §2.3.1), so that the number of the last known message counts
/// those of the known ones that are left. `false` with the rows: some have gone, or nobody knows.
fn continued(
    conn: &mut Conn,
    selected: &Selected,
    fetched: Result<Outcome, Trouble>,
    rows: Vec<Message>,
    known: &Known,
) -> Result<Option<(Vec<Message>, bool)>, Trouble> {
    let place = conn.aside().place.take();
    let is_limited = conn.view.message_limit.take().is_some();
    match fetched {
        Ok(outcome) if is_limited || outcome.message_limit().is_some() => return Ok(None),
        Ok(_) => {}
        Err(Trouble::No(_) | Trouble::Bad(_)) => return Ok(None),
        Err(trouble) => return Err(trouble),
    }
    let (listing, Some(last)) = (known.listing(), known.last()) else { return Ok(None) };
    if selected.uid_validity.is_none() || selected.uid_validity != listing.uid_validity() {
        return Ok(None);
    }
    let next = selected.uid_next.zip(known.uid_next());
    let is_breach =
        next.is_some_and(|(next, known)| next < known || next == known && selected.exists as usize > listing.len());
    let changed = |row: &&Message| row.uid <= last && listing.find(row.uid) != Some(**row);
    if is_breach || rows.iter().any(|row| changed(&row)) {
        info!("the mailbox is not as it was left, although its UIDVALIDITY is the same: it is listed anew");
        return Ok(None);
    }
    let left = place.and_then(|place| place.number).and_then(|number| usize::try_from(number).ok());
    let certain = left == Some(listing.len()) && conn.view.expunged == selected.expunged;
    let mut all: Vec<_> = (0..listing.len()).filter_map(|index| listing.message(index)).collect();
    all.extend(rows.into_iter().filter(|row| row.uid > last));
    Ok(Some((all, certain)))
}

/// Selects the mailbox again on a new line, and makes sure that it is the one that was listed.
pub(super) async fn reopen(server: &Server, conn: &mut Conn, ground: &Ground) -> Result<(), Trouble> {
    let outcome = conn.run(&format!("SELECT {}", name::mailbox(&server.settings.mailbox))).await?;
    let selected = Selected::of(&mut conn.view, &outcome)?;
    if selected.uid_validity.is_none() || selected.uid_validity != ground.uid_validity {
        return Err(Trouble::Changed("its UIDVALIDITY is another"));
    }
    if selected.uid_next < ground.uid_next {
        return Err(Trouble::Changed("its UIDNEXT went back"));
    }
    Ok(())
}

/// Fetches the rest where the server answers only so many messages a command (RFC 9738): ignoring that would shorten the
/// maildrop in silence.
async fn unlimited(conn: &mut Conn, mut rows: Vec<Message>) -> Result<Vec<Message>, Trouble> {
    while let Some(lowest) = conn.view.message_limit.take().filter(|lowest| *lowest > 1) {
        let (more, refusal) = fetch_some(conn, &format!("1:{}", lowest - 1)).await?;
        let next = conn.view.message_limit;
        rows.extend(&more);
        if next.is_some_and(|next| next >= lowest || more.is_empty()) || rows.len() > ROWS as usize {
            return Err(Malformed("a message limit that leads nowhere").into());
        }
        if let Some(refusal) = refusal {
            warn!(%refusal, listed = rows.len(), "the listing was refused");
            break;
        }
    }
    Ok(rows)
}

/// Messages that flags hide, ascending.
async fn hidden_by_flags(server: &Server, conn: &mut Conn, removal: &Removal) -> Result<Vec<Uid>, Trouble> {
    let mut hidden = Vec::new();
    if conn.view.exists == Some(0) {
        return Ok(hidden);
    }
    if server.settings.deleted == Deleted::Hide {
        hidden = search(conn, "DELETED").await?;
    }
    // FLAGS lists the keyword where a message bears it; that is asked for only there, or where it is how things are done, or
    // where FLAGS is not known.
    let keyword = KEYWORD.to_ascii_lowercase();
    let is_used = match conn.aside().flags.as_deref().map(str::to_ascii_lowercase) {
        Some(flags) => flags.trim_matches(['(', ')']).split(' ').any(|flag| flag == keyword),
        None => conn.view.keeps(KEYWORD) && !conn.capabilities.gmail,
    };
    if is_used || *removal == Removal::Hide {
        hidden.extend(search(conn, &format!("KEYWORD {KEYWORD}")).await?);
        hidden.sort_unstable();
    }
    Ok(hidden)
}

/// A line that is taken up again must answer within this time: a new one would not take much longer.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
