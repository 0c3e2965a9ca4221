//! Listings that are built on earlier ones, against what the mailbox truly holds, whatever other clients do between two
//! sessions or in the middle of a log-in. Only here is something known beforehand when a mailbox is opened.

use std::{io, sync::Arc};

use popgate::{
    mail::{Changes, Credentials, Proof, Secret, Snapshot, Uid},
    net::{Dial, Endpoint, Pending, Wire},
    upstream::{
        Mailbox as _, Settled, Upstream,
        cache::{Cached, Listings},
        imap::{Deleted, Imap, ImapMailbox},
    },
};
use proptest::{collection::vec, prelude::*};

use crate::support::{
    gate,
    script::{Account, Content, Mailbox, Manner, Server, What},
};

/// Lines to a scripted server, which may be another one each time.
struct Pipes(Server);

impl Dial for Pipes {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (ours, theirs) = tokio::io::duplex(1024);
        let server = self.0.clone();
        tokio::spawn(async move { server.serve(theirs).await });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

fn imap(server: &Server, deleted: Deleted) -> Imap {
    let settings = popgate::upstream::imap::Settings { deleted, ..gate::upstream() };
    Imap::new(settings, Arc::new(Pipes(server.clone())), None)
}

fn cached(server: &Server) -> Cached<Imap> {
    Cached::new(imap(server, Deleted::Show), "here", Listings::new(1 << 20))
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
    let search = "UID SEARCH RETURN (ALL) UID 1:12";
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
}

fn kind() -> impl Strategy<Value = Kind> {
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.9), any::<bool>())
        .prop_map(|(esearch, uid_next, sticky, hide)| Kind { esearch, uid_next, sticky, hide })
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
    let deleted = if kind.hide { Deleted::Hide } else { Deleted::Show };
    let calm = Server::fixture(base.clone());
    inbox(&calm, |inbox| (inbox.tells_uid_next, inbox.sticky) = (kind.uid_next, kind.sticky));
    let listings = Listings::new(1 << 20);
    for (between, amid) in rounds {
        inbox(&calm, |inbox| between.iter().for_each(|deed| act(inbox, deed)));
        let (_, fresh) = imap(&calm, deleted).open(&tim()).await.unwrap();
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
