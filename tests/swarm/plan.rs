//! What a seed makes of a simulation: the server and its faults, the gateway's options, the clients.

use std::{sync::Arc, time::Duration};

use popgate::{
    gateway::{Lock, Maildrops, Seen},
    upstream::imap::{self, Deleted, OnDelete},
};

use super::{
    actor::{self, Deed},
    chance::Chance,
    client::{BEHAVIOURS, PROOFS, Temper},
    world::Shared,
};
use crate::support::{
    gate::Memory,
    script::{Account, Manner, Order, What},
};

/// What is decided before anything runs.
pub(super) struct Plan {
    pub(super) users: Vec<String>,
    pub(super) clients: u64,
    pub(super) options: Options,
    pub(super) manner: Manner,
    /// Octets of room on a client's line, and on one to the server.
    pub(super) room: (usize, usize),
    /// How many messages in a hundred are so large that popgate passes them on while they come.
    pub(super) large: u64,
    /// The mailboxes are read-only.
    pub(super) read_only: bool,
    /// Flags that are not known may be stored.
    pub(super) keywords: bool,
    pub(super) tells_uid_next: bool,
    /// How many attempts in a hundred to reach the server fail.
    pub(super) unreachable: u64,
    /// How many deviations there are.
    pub(super) faults: u64,
    /// DELE must be answered `+OK` when nothing is wrong.
    pub(super) accepts: bool,
    /// … and QUIT then removes, so that it goes into the history.
    pub(super) records: bool,
    /// What is retrieved may be flagged `\Seen`.
    pub(super) marks: bool,
}

/// What a configuration chooses. A new switch of the gateway has its place here and in [`Options::apply`].
pub(super) struct Options {
    pub(super) memory: Memory,
    read_ahead: bool,
    on_delete: Option<OnDelete>,
    pub(super) deleted: Deleted,
    seen: Seen,
    lock: Lock,
    send_client_address: bool,
    unique_ids: &'static str,
}

impl Options {
    fn draw(chance: &mut Chance) -> Self {
        Self {
            memory: chance.pick(&[Memory::Nothing, Memory::Everything]),
            read_ahead: chance.percent(50),
            on_delete: chance.pick(&[None, None, None, Some(OnDelete::Expunge), Some(OnDelete::Ignore)]),
            deleted: chance.pick(&[Deleted::Show, Deleted::Show, Deleted::Hide, Deleted::Own]),
            seen: chance.pick(&[Seen::Quit, Seen::Retr, Seen::Never]),
            lock: chance.pick(&[Lock::None, Lock::None, Lock::None, Lock::Gateway]),
            unique_ids: chance.pick(&["dovecot", "cyrus"]),
            send_client_address: chance.percent(50),
        }
    }

    pub(super) fn apply(&self, upstream: &mut imap::Settings, maildrops: &mut Maildrops) {
        upstream.read_ahead = self.read_ahead;
        upstream.on_delete = self.on_delete;
        upstream.deleted = self.deleted;
        maildrops.seen = self.seen;
        maildrops.lock = self.lock;
        maildrops.send_client_address = self.send_client_address;
        maildrops.unique_ids = self.unique_ids.parse().unwrap();
    }

    /// The unique id of a message.
    pub(super) fn unique_id(&self, validity: u32, uid: u32) -> String {
        match self.unique_ids {
            "cyrus" => format!("{validity}.{uid}"),
            _ => format!("{uid:08x}{validity:08x}"),
        }
    }
}

impl Plan {
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let options = Options::draw(chance);
        let without: &[&str] = chance.pick(&[
            &[][..],
            &[],
            &["ESEARCH"],
            &["UIDPLUS"],
            &["UIDPLUS", "ESEARCH", "SPECIAL-USE"],
            &["UIDPLUS", "MOVE"],
            &["UIDPLUS", "MOVE", "ESEARCH"],
            &["MOVE", "ENABLE"],
        ]);
        let mut manner = Manner {
            tells: chance.percent(80),
            uid_last: chance.percent(30),
            order: chance.pick(&[Order::Each, Order::Each, Order::Fours, Order::End, Order::Reversed]),
            latency: Duration::from_millis(chance.pick(&[0, 10, 100, 3_000])),
            ..Manner::default().without(without)
        };
        if chance.percent(30) {
            manner.before = "IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2".into();
        }
        let read_only = chance.percent(3);
        Self {
            users: (0..=chance.below(4)).map(|number| format!("user{number}")).collect(),
            clients: 1 + chance.below_one(&[1, 4, 10, 20, 49]),
            manner,
            room: (chance.pick(&[64, 1024, 65_536]), chance.pick(&[64, 1024, 65_536])),
            large: chance.pick(&[2, 2, 2, 2, 30]),
            read_only,
            keywords: without.contains(&"MOVE") || chance.percent(90),
            tells_uid_next: chance.percent(90),
            unreachable: chance.pick(&[0, 0, 5, 30]),
            faults: chance.pick(&[0, 1, 3, 10, 30]),
            accepts: !read_only || options.on_delete == Some(OnDelete::Ignore),
            records: options.on_delete != Some(OnDelete::Ignore),
            marks: options.seen != Seen::Never,
            options,
        }
    }

    /// How a client is.
    pub(super) fn temper(chance: &mut Chance) -> Temper {
        let long =
            [Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(70), Duration::from_secs(650)];
        Temper {
            behaviour: chance.pick(&BEHAVIOURS),
            proof: chance.pick(&PROOFS),
            is_mistaken: chance.percent(5),
            patience: chance.percent(30).then(|| chance.below_one(&[5, 40, 400])),
            slow: chance.percent(20).then(|| (1 + chance.below(10), chance.pick(&long))),
        }
    }
}

/// The commands that deviations concern, those before log-in first.
const COMMANDS: [&str; 19] = [
    "GREETING",
    "CAPABILITY",
    "ID",
    "AUTHENTICATE",
    "SELECT",
    "UID FETCH 1:*",
    "UID FETCH",
    BODIES[0],
    BODIES[1],
    BODIES[2],
    BODIES[3],
    BODIES[4],
    "UID SEARCH",
    "UID STORE",
    "UID EXPUNGE",
    "UID MOVE",
    "LIST",
    "NOOP",
    "LOGOUT",
];

/// Those that ask for bodies: any of them, those of a message, those of two at once.
const BODIES: [&str; 5] = ["UID FETCH ~", "UID FETCH ~1", "UID FETCH ~2", "UID FETCH ~3", GROUP];
const GROUP: &str = "UID FETCH ~2,3";

/// A fault of the server's: at which command, the how many-th, what, and what it is called.
pub(super) fn fault(chance: &mut Chance, shared: &Arc<Shared>) -> (&'static str, usize, What, &'static str) {
    let on = chance.pick(&COMMANDS);
    let some = |chance: &mut Chance| chance.below_one(&[20, 200, 5_000, 80_000]);
    let kind = chance.below(20);
    let on = match kind {
        // A message whose size the server will not tell for anything is left out of the listing, by design.
        0 | 1 | 11 | 12 if on == "UID FETCH" => BODIES[0],
        14..=16 => chance.pick(&BODIES),
        // Before log-in there is no mailbox to act at.
        18.. if COMMANDS[..4].contains(&on) => "SELECT",
        _ => on,
    };
    // Some do not come often.
    let nth = if chance.percent(3) { 0 } else { 1 + chance.below(if BODIES.contains(&on) { 4 } else { 20 }) as usize };
    let (what, name) = match kind {
        0 if on == GROUP => (What::No("no".into()), "NO to several bodies"),
        1 if on == GROUP => (What::No("[UNAVAILABLE] later".into()), "NO to several bodies"),
        0 if on != "AUTHENTICATE" => (What::No("no".into()), "NO"),
        0 | 1 => (What::No("[UNAVAILABLE] later".into()), "NO [UNAVAILABLE]"),
        2 => (What::Bad("what".into()), "BAD"),
        3 => (What::Bye("enough".into()), "BYE"),
        4 => (What::Close, "line ends before"),
        5..=7 => (What::Cut(some(chance)), "line ends within"),
        8 | 9 => (What::Stall(some(chance)), "silence within"),
        10 => (What::Mute, "no reply"),
        // What is not done and said to be: only where somebody could notice.
        11 if matches!(on, "UID STORE" | "UID EXPUNGE" | "UID MOVE") || on.starts_with("UID FETCH") => {
            (What::Say(b"$ OK that is all\r\n".to_vec()), "OK and nothing done")
        }
        11 => (What::Before(b"A9998 OK stale\r\n".to_vec()), "stale OK"),
        12 if on != "AUTHENTICATE" => (What::Tagged(b"$ NO after all\r\n".to_vec()), "data and NO"),
        12 | 13 => (What::Tagged(b"* BYE after all\r\n".to_vec()), "data and BYE"),
        14 => (What::Literal(chance.pick(&[-40, -4, -1, 1, 4, 200])), "wrong literal"),
        15 => (What::Body(chance.pick(&["NIL", "\"\"", "{0}\r\n"])), "empty body"),
        16 => (What::Bodiless, "no body"),
        17 => (What::Before(b"* OK [ALERT] odd\r\n* XFOO (\r\n".to_vec()), "odd lines"),
        _ => {
            let (deed, shared) = (chance.pick(&actor::DEEDS), Arc::clone(shared));
            let which = chance.below(100);
            let act = move |account: &mut Account| {
                let user = account.user.clone();
                if let Some(inbox) = account.mailbox("INBOX") {
                    actor::act(deed, which, &user, inbox, &shared);
                }
            };
            (
                What::Act(Arc::new(act)),
                match deed {
                    Deed::Deliver => "mail arrives just then",
                    Deed::Expunge | Deed::Purge => "mail removed just then",
                    Deed::Flag | Deed::Doom => "mail flagged just then",
                    Deed::Rebuild => "new UIDVALIDITY just then",
                },
            )
        }
    };
    (on, nth, what, name)
}
