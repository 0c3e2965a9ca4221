//! Listings that are built on earlier ones, against what the mailbox truly holds, whatever other clients do between two
//! sessions or in the middle of a log-in. Only here is something known beforehand when a mailbox is opened.

use std::{fs, path::Path, sync::Arc};

use popgate::{
    mail::{Changes, Credentials, Proof, Secret, Snapshot, Uid},
    upstream::{
        Mailbox as _, Settled, Upstream,
        cache::{Cached, Counts, Listings, Settings},
        imap::{Deleted, Imap, ImapMailbox},
    },
};
use proptest::{collection::vec, prelude::*};

use crate::support::{
    gate,
    script::{Account, Content, Mailbox, Manner, Server, What},
    serve::{Popgate, scripted},
};

fn imap(server: &Server, deleted: Deleted) -> Imap {
    let settings = popgate::upstream::imap::Settings { deleted, ..gate::upstream() };
    Imap::new(settings, Arc::new(gate::Pipes(server.clone(), 1024)), None)
}

fn cached(server: &Server) -> Cached<Imap> {
    Cached::new(imap(server, Deleted::Show), "here", Listings::new(1 << 20))
}

/// What another process finds in the directory.
fn on_disk(directory: &Path) -> Arc<Listings> {
    Listings::open(&Settings { size: 1 << 20, path: Some(directory.to_owned()) })
}

fn tim() -> Arc<Credentials> {
    Arc::new(Credentials::new("tim".into(), Proof::Password(Secret::new(b"sec ret".to_vec()))))
}

/// The listing, and the commands that it took beside the log-in.
async fn poll(server: &Server, upstream: &Cached<Imap>) -> (Arc<Snapshot>, Vec<String>) {
    let before = server.received().len();
    let (mailbox, snapshot) = upstream.open(&tim()).await.unwrap();
    let commands = server.received().split_off(before).into_iter().map(|received| received.text);
    mailbox.leave().await;
    // The farewell of the session before may come late.
    (snapshot, commands.filter(|command| !command.starts_with("AUTHENTICATE") && command != "LOGOUT").collect())
}

/// The same by a process that has just started and ends then.
async fn poll_from_disk(server: &Server, directory: &Path) -> (Arc<Snapshot>, Vec<String>) {
    let listings = on_disk(directory);
    let polled = poll(server, &Cached::new(imap(server, Deleted::Show), "here", Arc::clone(&listings))).await;
    listings.written().await;
    polled
}

fn listed(snapshot: &Snapshot) -> Vec<(u32, u64)> {
    let message = |index| snapshot.message(index).unwrap();
    (0..snapshot.len()).map(message).map(|message| (message.uid.value(), message.octets)).collect()
}

fn inbox<T>(server: &Server, act: impl FnOnce(&mut Mailbox) -> T) -> T {
    server.with("tim", "INBOX", act)
}

fn truth(mailbox: &Mailbox) -> Vec<(u32, u64)> {
    mailbox.messages.iter().map(|message| (message.uid, message.reported)).collect()
}

fn become_another(mailbox: &mut Mailbox) {
    mailbox.uid_validity = mailbox.uid_validity.map(|validity| validity + 1);
    for (message, uid) in mailbox.messages.iter_mut().zip(1..) {
        message.uid = uid;
    }
    mailbox.uid_next = mailbox.messages.len() as u32 + 1;
}

/// What a poll costs beside the log-in, and that sessions share what they list.
#[tokio::test(start_paused = true)]
async fn only_what_is_new_is_asked_for() {
    let server = Server::fixture(Manner::default());
    let upstream = cached(&server);
    let (first, commands) = poll(&server, &upstream).await;
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 1:* (RFC822.SIZE)"]);
    let (second, commands) = poll(&server, &upstream).await;
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 9:* (RFC822.SIZE)"]);
    assert!(Arc::ptr_eq(&first, &second), "two sessions with the same listing hold it twice");

    inbox(&server, |inbox| inbox.deliver(Content::Filler(150)));
    let (snapshot, commands) = poll(&server, &upstream).await;
    assert_eq!(listed(&snapshot), [(5, 120), (7, 200), (9, 300), (12, 150)]);
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 9:* (RFC822.SIZE)"]);

    inbox(&server, |inbox| inbox.expunge(7));
    let (snapshot, commands) = poll(&server, &upstream).await;
    assert_eq!(listed(&snapshot), [(5, 120), (9, 300), (12, 150)]);
    let search = "UID SEARCH RETURN (ALL) ALL";
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 12:* (RFC822.SIZE)", "NOOP", search]);

    inbox(&server, become_another);
    let (snapshot, commands) = poll(&server, &upstream).await;
    assert_eq!(listed(&snapshot), [(1, 120), (2, 300), (3, 150)]);
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 12:* (RFC822.SIZE)", "UID FETCH 1:* (RFC822.SIZE)"]);

    inbox(&server, |inbox| inbox.messages.clear());
    assert!(poll(&server, &upstream).await.0.is_empty());
    let (snapshot, commands) = poll(&server, &upstream).await;
    assert!(snapshot.is_empty());
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 1:* (RFC822.SIZE)"]);
}

/// A server that leaves a new message out while a known one is gone has the right number of rows.
#[tokio::test(start_paused = true)]
async fn the_right_number_of_rows_proves_nothing() {
    let row = b"* 3 FETCH (UID 13 RFC822.SIZE 160)\r\n$ OK done\r\n".to_vec();
    let last = b"* 2 FETCH (UID 9 RFC822.SIZE 300)\r\n* 4 FETCH (UID 13 RFC822.SIZE 160)\r\n$ OK done\r\n".to_vec();
    for (say, gone) in [(row, 9), (last, 7)] {
        let server = Server::fixture(Manner::default().deviating("UID FETCH 9:*", 1, What::Say(say)));
        let upstream = cached(&server);
        poll(&server, &upstream).await;
        inbox(&server, |inbox| {
            inbox.expunge(gone);
            inbox.deliver(Content::Filler(150));
            inbox.deliver(Content::Filler(160));
        });
        assert_eq!(listed(&poll(&server, &upstream).await.0), inbox(&server, |inbox| truth(inbox)));
    }
}

/// RFC 9738, C.2: a limit holds for searches, too, which only a listing that is built on another needs here.
#[tokio::test(start_paused = true)]
async fn a_server_that_limits_commands_is_asked_for_the_rest() {
    for esearch in [true, false] {
        let manner = if esearch { Manner::default() } else { Manner::default().without(&["ESEARCH"]) };
        let server = Server::fixture(Manner { message_limit: Some(2), ..manner });
        for octets in 150..155 {
            inbox(&server, |inbox| inbox.deliver(Content::Filler(octets)));
        }
        let cached = Cached::new(imap(&server, Deleted::Hide), "here", Listings::new(1 << 20));
        poll(&server, &cached).await;
        inbox(&server, |inbox| {
            inbox.expunge(7);
            inbox.flag(5, "\\Deleted");
        });
        let (snapshot, commands) = poll(&server, &cached).await;
        assert_eq!(listed(&snapshot), inbox(&server, |inbox| truth(inbox))[1..]);
        assert!(commands.iter().any(|command| command.ends_with(" UID 1:14 ALL")), "{commands:?}");
        assert!(commands.iter().any(|command| command.ends_with(" UID 1:8 DELETED")), "{commands:?}");
    }
}

/// Only who knows something has to ask what is left of it. A server that cannot tell is asked what a first visitor asks: on the
/// same line if that still does, else on another, and at the latest in the next session.
#[tokio::test(start_paused = true)]
async fn what_is_known_locks_nobody_out() {
    let say = |text: &str| What::Say(text.into());
    for (what, connections, opens) in [
        (What::No("search is out of order".into()), 2, true),
        (What::Bad("what".into()), 2, true),
        (say("* ESEARCH (TAG \"$\") UID ALL 5:1000\r\n$ OK done\r\n"), 2, true),
        (say("* ESEARCH (TAG \"$\") UID\r\n$ OK done\r\n"), 2, true),
        (say("A9999 OK whose\r\n"), 3, true),
        (What::Close, 2, false),
        (What::Mute, 2, false),
    ] {
        let server = Server::fixture(Manner::default().deviating("UID SEARCH", 0, what));
        let directory = tempfile::tempdir().unwrap();
        poll_from_disk(&server, directory.path()).await;
        inbox(&server, |inbox| inbox.expunge(7));
        let listings = on_disk(directory.path());
        let upstream = Cached::new(imap(&server, Deleted::Show), "here", Arc::clone(&listings));
        let opened = upstream.open(&tim()).await;
        assert_eq!((server.connections(), opened.is_ok()), (connections, opens));
        assert!(opened.is_err() || listed(&opened.unwrap().1) == [(5, 120), (9, 300)]);
        listings.written().await;
        let expected = if opens { "UID FETCH 9:* (RFC822.SIZE)" } else { "UID FETCH 1:* (RFC822.SIZE)" };
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), usize::from(opens));
        let (snapshot, commands) = poll(&server, &upstream).await;
        assert_eq!(listed(&snapshot), [(5, 120), (9, 300)]);
        assert_eq!(commands, ["SELECT INBOX", expected]);
    }
}

/// UIDVALIDITY is the same and yet the mailbox is another: nothing that was known is believed.
#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_its_word_is_listed_anew() {
    let breaches: [fn(&mut Mailbox); 3] = [
        |inbox| inbox.uid_next = 10, // UIDNEXT went back.
        |inbox| {
            inbox.uid_next = 8; // A message that came behind UIDNEXT's back.
            inbox.expunge(9);
            inbox.deliver(Content::Filler(1));
            inbox.deliver(Content::Filler(2));
            inbox.uid_next = 12;
        },
        |inbox| inbox.messages[2].reported = 301,
    ];
    for breach in breaches {
        let server = Server::fixture(Manner::default());
        let upstream = cached(&server);
        poll(&server, &upstream).await;
        inbox(&server, breach);
        assert_eq!(listed(&poll(&server, &upstream).await.0), inbox(&server, |inbox| truth(inbox)));
        assert!(
            server.received().iter().filter(|received| received.text == "UID FETCH 1:* (RFC822.SIZE)").count() == 2
        );
    }
}

/// E.3: a message that this session has not listed itself is looked at before it is deleted.
#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_verified_before_it_is_deleted() {
    let server = Server::fixture(Manner::default());
    let upstream = cached(&server);
    poll(&server, &upstream).await;
    inbox(&server, |inbox| inbox.deliver(Content::Filler(150)));
    let (mut mailbox, _): (ImapMailbox, _) = upstream.open(&tim()).await.unwrap();
    inbox(&server, |inbox| inbox.messages[0].reported = 121);
    let delete = [5, 7, 12].into_iter().filter_map(Uid::new).collect();
    let settled = mailbox.settle(&Changes { delete, seen: Vec::new() }).await;
    assert!(matches!(settled, Settled::Partly { left: 1, .. }), "{settled:?}");
    assert_eq!(inbox(&server, |inbox| inbox.uids()), [5, 9]);

    // What came since costs no look.
    inbox(&server, |inbox| inbox.deliver(Content::Filler(150)));
    let (mut mailbox, _) = upstream.open(&tim()).await.unwrap();
    let before = server.received().len();
    let delete = Uid::new(13).into_iter().collect();
    assert!(matches!(mailbox.settle(&Changes { delete, seen: Vec::new() }).await, Settled::Done));
    let commands: Vec<_> = server.received().split_off(before).into_iter().map(|received| received.text).collect();
    assert!(!commands.iter().any(|command| command.starts_with("UID FETCH")), "{commands:?}");
}

/// A size that drifts keeps a message from being deleted once, and not as long as it is remembered.
#[tokio::test(start_paused = true)]
async fn what_is_found_changed_is_remembered_no_longer() {
    for restarts in [false, true] {
        let server = Server::fixture(Manner::default());
        let directory = tempfile::tempdir().unwrap();
        poll_from_disk(&server, directory.path()).await;
        inbox(&server, |inbox| inbox.messages[1].reported = 203);
        let mut listings = on_disk(directory.path());
        for (octets, left) in [(200, vec![5, 7, 9]), (203, vec![5, 9])] {
            let upstream = Cached::new(imap(&server, Deleted::Show), "here", Arc::clone(&listings));
            let (mut mailbox, snapshot) = upstream.open(&tim()).await.unwrap();
            assert_eq!(listed(&snapshot), [(5, 120), (7, octets), (9, 300)]);
            mailbox.settle(&Changes { delete: Uid::new(7).into_iter().collect(), seen: Vec::new() }).await;
            assert_eq!(inbox(&server, |inbox| inbox.uids()), left);
            mailbox.leave().await;
            listings.written().await;
            if restarts {
                listings = on_disk(directory.path());
            }
        }
    }
}

/// J-34: a message that cannot be read any more keeps no other from being deleted, or for one session at most.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_any_more_keeps_no_other() {
    for (gives_what_it_can, kept) in [(true, vec![7, 9]), (false, vec![5, 7, 9])] {
        let server = Server::fixture(Manner { gives_what_it_can, ..Manner::default() });
        let upstream = cached(&server);
        poll(&server, &upstream).await;
        inbox(&server, |inbox| inbox.unreadable = vec![7]);
        for (delete, kept) in [([5, 7], kept), ([5, 9], vec![7])] {
            let (mut mailbox, _) = upstream.open(&tim()).await.unwrap();
            let delete = delete.into_iter().filter_map(Uid::new).collect();
            let settled = mailbox.settle(&Changes { delete, seen: Vec::new() }).await;
            assert_eq!(inbox(&server, |inbox| inbox.uids()), kept);
            assert_eq!(matches!(settled, Settled::Done), kept == [7], "{settled:?}");
        }
    }
}

/// A new process knows from the disk what the one before it knew, and believes it as little.
#[tokio::test(start_paused = true)]
async fn what_is_on_disk_saves_the_first_session_its_listing() {
    let server = Server::fixture(Manner::default());
    let directory = tempfile::tempdir().unwrap();
    let poll = async || poll_from_disk(&server, directory.path()).await;
    assert_eq!(poll().await.1, ["SELECT INBOX", "UID FETCH 1:* (RFC822.SIZE)"]);
    let (snapshot, commands) = poll().await;
    assert_eq!(listed(&snapshot), [(5, 120), (7, 200), (9, 300)]);
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 9:* (RFC822.SIZE)"]);

    let listings = on_disk(directory.path());
    let cached = Cached::new(imap(&server, Deleted::Show), "here", Arc::clone(&listings));
    for _ in 0..2 {
        self::poll(&server, &cached).await;
    }
    assert_eq!(listings.counts(), Counts { in_memory: 1, on_disk: 1, unknown: 0 });

    inbox(&server, |inbox| inbox.deliver(Content::Filler(150)));
    inbox(&server, |inbox| inbox.expunge(7));
    assert_eq!(listed(&poll().await.0), [(5, 120), (9, 300), (12, 150)]);
    assert_eq!(poll().await.1, ["SELECT INBOX", "UID FETCH 12:* (RFC822.SIZE)"]);

    inbox(&server, become_another);
    let (snapshot, commands) = poll().await;
    assert_eq!(listed(&snapshot), [(1, 120), (2, 300), (3, 150)]);
    assert_eq!(commands, ["SELECT INBOX", "UID FETCH 12:* (RFC822.SIZE)", "UID FETCH 1:* (RFC822.SIZE)"]);

    inbox(&server, |inbox| inbox.messages.clear());
    assert!(poll().await.0.is_empty());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "of an empty mailbox nothing is kept");
}

/// Whoever only guesses at a password has nothing read, and keeps no file from making room.
#[tokio::test(start_paused = true)]
async fn nothing_is_recalled_for_who_is_not_let_in() {
    let server = Server::fixture(Manner::default());
    let directory = tempfile::tempdir().unwrap();
    poll_from_disk(&server, directory.path()).await;
    let listings = on_disk(directory.path());
    let upstream = Cached::new(imap(&server, Deleted::Show), "here", Arc::clone(&listings));
    let guess = Credentials::new("tim".into(), Proof::Password(Secret::new(b"sec re".to_vec())));
    assert!(upstream.open(&Arc::new(guess)).await.is_err());
    assert_eq!(listings.counts(), Counts { in_memory: 0, on_disk: 0, unknown: 0 });
    poll(&server, &upstream).await;
    assert_eq!(listings.counts(), Counts { in_memory: 0, on_disk: 1, unknown: 0 });
}

/// T12A: after every kind of damage the listing is the one that a first visitor gets.
#[tokio::test(start_paused = true)]
async fn damage_on_disk_costs_a_listing() {
    let server = Server::fixture(Manner::default());
    let directory = tempfile::tempdir().unwrap();
    poll_from_disk(&server, directory.path()).await;
    let file = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&file).unwrap();
    let cuts = (0..good.len()).map(|length| good[..length].to_vec());
    let flips = (0..good.len()).map(|index| {
        let mut flipped = good.clone();
        flipped[index] ^= 1 << (index % 8);
        flipped
    });
    for damaged in cuts.chain(flips) {
        fs::write(&file, damaged).unwrap();
        let (snapshot, commands) = poll_from_disk(&server, directory.path()).await;
        assert_eq!(listed(&snapshot), [(5, 120), (7, 200), (9, 300)]);
        assert_eq!(commands, ["SELECT INBOX", "UID FETCH 1:* (RFC822.SIZE)"]);
    }
}

/// What the disk does is no session's trouble.
#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_nothing_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    // No directory, not even for root; one that does not take files, not even from root; one that cannot be made.
    for path in [file.as_path(), Path::new("/proc/self"), Path::new("/nowhere/listings")] {
        let server = Server::fixture(Manner::default());
        let listings = on_disk(path);
        let upstream = Cached::new(imap(&server, Deleted::Show), "here", Arc::clone(&listings));
        assert_eq!(poll(&server, &upstream).await.0.len(), 3);
        listings.written().await;
        let (snapshot, commands) = poll(&server, &upstream).await;
        assert_eq!(listed(&snapshot), [(5, 120), (7, 200), (9, 300)]);
        assert_eq!(commands, ["SELECT INBOX", "UID FETCH 9:* (RFC822.SIZE)"], "memory is as good as ever");
    }
}

#[test]
fn a_restart_forgets_nothing() {
    let (server, url) = scripted(Manner::default());
    let directory = tempfile::tempdir().unwrap();
    let path = format!("cache.path={}", directory.path().join("listings").display());
    let mut fetches = Vec::new();
    for _ in 0..2 {
        let popgate = Popgate::serve(&url, &["--set", &path]);
        let mut session = popgate.pop3("tim", "sec ret");
        assert_eq!(session.list("UIDL").len(), 3);
        assert!(session.quit().starts_with("+OK"));
        let log = popgate.stop();
        assert!(!log.contains("listings"), "{log}");
        fetches = server.received().into_iter().map(|received| received.text).collect();
        fetches.retain(|command: &String| command.starts_with("UID FETCH"));
    }
    assert_eq!(fetches, ["UID FETCH 1:* (RFC822.SIZE)", "UID FETCH 9:* (RFC822.SIZE)"]);
}

/// What somebody else does.
#[derive(Clone, Debug)]
enum Deed {
    Deliver(u64),
    /// The message at this place, counted round.
    Expunge(usize),
    Flag(usize),
    BecomeAnother,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1..5_000_u64).prop_map(Deed::Deliver),
        4 => any::<usize>().prop_map(Deed::Expunge),
        2 => any::<usize>().prop_map(Deed::Flag),
        1 => Just(Deed::BecomeAnother),
    ]
}

fn act(mailbox: &mut Mailbox, deed: &Deed) {
    let uids = mailbox.uids();
    let uid = |at: usize| uids.get(at % uids.len().max(1)).copied();
    match *deed {
        Deed::Deliver(octets) => drop(mailbox.deliver(Content::Filler(octets))),
        Deed::Expunge(at) => uid(at).into_iter().for_each(|uid| mailbox.expunge(uid)),
        Deed::Flag(at) => uid(at).into_iter().for_each(|uid| mailbox.flag(uid, "\\Deleted")),
        Deed::BecomeAnother => become_another(mailbox),
    }
}

/// Which capabilities and habits the server has.
#[derive(Clone, Debug)]
struct Kind {
    esearch: bool,
    uid_next: bool,
    sticky: bool,
    hide: bool,
    message_limit: Option<usize>,
    /// What is known is known from the disk, each time.
    restarts: bool,
}

fn kind() -> impl Strategy<Value = Kind> {
    let limit = prop::option::weighted(0.2, 1..4_usize);
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.9), any::<bool>(), limit, any::<bool>()).prop_map(
        |(esearch, uid_next, sticky, hide, message_limit, restarts)| Kind {
            esearch,
            uid_next,
            sticky,
            hide,
            message_limit,
            restarts,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// F-08, F-33: with everything that is known from before, a listing is the one that a first visitor gets at the same
    /// moment; and if others act between SELECT and FETCH, every message that was there all the time is in it.
    #[test]
    fn a_listing_is_what_a_first_visitor_sees(
        kind in kind(),
        rounds in vec((vec(deed(), 0..6), vec(deed(), 0..3)), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(compare(&kind, &rounds));
    }
}

async fn compare(kind: &Kind, rounds: &[(Vec<Deed>, Vec<Deed>)]) {
    let base = if kind.esearch { Manner::default() } else { Manner::default().without(&["ESEARCH"]) };
    let base = Manner { message_limit: kind.message_limit, ..base };
    let deleted = if kind.hide { Deleted::Hide } else { Deleted::Show };
    let calm = Server::fixture(base.clone());
    inbox(&calm, |inbox| (inbox.tells_uid_next, inbox.sticky) = (kind.uid_next, kind.sticky));
    let directory = tempfile::tempdir().unwrap();
    let mut listings = Listings::new(1 << 20);
    for (between, amid) in rounds {
        inbox(&calm, |inbox| between.iter().for_each(|deed| act(inbox, deed)));
        let (_, fresh) = imap(&calm, deleted).open(&tim()).await.unwrap();
        if kind.restarts {
            listings.written().await;
            listings = on_disk(directory.path());
        }
        let upstream = Cached::new(imap(&calm, deleted), "here", listings.clone());
        let (mailbox, snapshot) = upstream.open(&tim()).await.unwrap();
        assert_eq!(snapshot, fresh);
        mailbox.leave().await;

        // The same mailbox on a server on which others act in the middle of the log-in, until it is found as they left it.
        let before = inbox(&calm, |inbox| inbox.clone());
        let deeds: Vec<_> = amid.iter().filter(|deed| !matches!(deed, Deed::BecomeAnother)).cloned().collect();
        let meddle = move |account: &mut Account| {
            let inbox = account.mailbox("INBOX").unwrap();
            deeds.iter().for_each(|deed| act(inbox, deed));
        };
        let busy = Server::fixture(base.clone().deviating("UID FETCH", 1, What::Act(Arc::new(meddle))));
        inbox(&busy, |inbox| *inbox = before.clone());
        let upstream = Cached::new(imap(&busy, deleted), "here", listings.clone());
        let (mailbox, snapshot) = upstream.open(&tim()).await.unwrap();
        mailbox.leave().await;
        let after = inbox(&busy, |inbox| inbox.clone());
        let shown = |mailbox: &Mailbox, uid: u32| {
            mailbox.message(uid).is_some_and(|message| !(kind.hide && message.has("\\Deleted")))
        };
        for (uid, octets) in truth(&before).into_iter().filter(|(uid, _)| shown(&before, *uid) && shown(&after, *uid)) {
            let message = snapshot.find(Uid::new(uid).unwrap());
            assert_eq!(message.map(|message| message.octets), Some(octets), "UID {uid} is missing");
        }
        for uid in snapshot.uids() {
            assert!(
                before.message(uid.value()).is_some() || after.message(uid.value()).is_some(),
                "UID {uid} never was"
            );
        }
        inbox(&calm, |inbox| *inbox = after.clone());
    }
}

/// How many cases; the README beside this file has the command for more.
fn cases() -> u32 {
    std::env::var("CACHE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
}
