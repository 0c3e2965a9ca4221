//! Everything that takes part: the upstream with its mailboxes, the peer and popgate before it, near and far.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    choice::{Choice, Size},
    dovecot::{Dovecot, PASSWORD},
    figures::{COLD, POPGATE},
    imap::Imap,
    mail::{self, Fingerprint},
    relay::Relay,
    rows::ROWS,
    support::serve::Popgate,
};

/// What is measured against what.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) near: Place,
    /// Behind the distance.
    pub(crate) far: Place,
    /// What makes the distance.
    pub(crate) line: Arc<Relay>,
}

/// Where a target is reached.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) port: u16,
    /// The gateway's process; none where there is no gateway.
    pub(crate) gateway: Option<u32>,
}

/// A mailbox at the upstream; its user has the same name.
pub(crate) struct Mailbox {
    pub(crate) user: &'static str,
    pub(crate) size: Size,
    /// What each message is on the wire, and its fingerprint.
    pub(crate) messages: Vec<(u64, Fingerprint)>,
}

/// All of it.
pub(crate) struct Scene {
    pub(crate) targets: Vec<Target>,
    mailboxes: BTreeMap<&'static str, Mailbox>,
    pub(crate) upstream: Dovecot,
    strangers: AtomicU32,
    _running: (Vec<Dovecot>, Vec<Popgate>),
}

impl Scene {
    /// Starts everything.
    pub(crate) fn set() -> Self {
        let upstream = Dovecot::upstream();
        let line = Arc::new(Relay::start(upstream.imap_port));
        let direct_line = Arc::new(Relay::start(upstream.pop3_port));
        let bare = |near, line: &Relay| [near, line.port].map(|port| Place { port, gateway: None });
        let mut targets = Vec::new();
        let mut target = |name, [near, far]: [Place; 2], line: &Arc<Relay>| {
            targets.push(Target { name, near, far, line: Arc::clone(line) });
        };
        target("raw", bare(upstream.imap_port, &line), &line);
        target("direct", bare(upstream.pop3_port, &direct_line), &direct_line);

        let ports = [upstream.imap_port, line.port];
        let place = |peer: &Dovecot| Place { port: peer.pop3_port, gateway: Some(peer.id()) };
        let peers = ports.map(Dovecot::peer);
        target("peer", [place(&peers[0]), place(&peers[1])], &line);
        let place = |gate: &Popgate| Place { port: gate.port, gateway: Some(gate.id()) };
        // Log-ins come as fast as they can here, and the upstream is not to be spared.
        let off = ["--set", "upstream.warm_ttl=0s", "--set", "limits.logins_per_second=100000"];
        let gates = ports.map(|port| Popgate::serve(&format!("imap://127.0.0.1:{port}"), &off[2..]));
        target(POPGATE, [place(&gates[0]), place(&gates[1])], &line);
        let cold = ports.map(|port| Popgate::serve(&format!("imap://127.0.0.1:{port}"), &off));
        target(COLD, [place(&cold[0]), place(&cold[1])], &line);

        let running = (Vec::from(peers), gates.into_iter().chain(cold).collect());
        Self { targets, mailboxes: BTreeMap::new(), upstream, strangers: AtomicU32::new(0), _running: running }
    }

    /// Another name for the user, under which nobody has come yet: for the upstream it is the same mailbox, for a gateway
    /// it is one that it does not know.
    pub(crate) fn stranger(&self, user: &str) -> String {
        format!("{user}@{}.example", self.strangers.fetch_add(1, Ordering::Relaxed))
    }

    /// The name of a user whom nobody knows, and who has no mail yet.
    pub(crate) fn newcomer(&self) -> String {
        format!("newcomer{}", self.strangers.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes the mailbox of a newcomer.
    pub(crate) fn forget(&self, user: &str) {
        self.upstream.remove(user);
    }

    /// The mailbox of this user, filled at the first time.
    pub(crate) fn fill(&mut self, user: &'static str, size: Size) {
        if !self.mailboxes.contains_key(user) {
            eprintln!("  {} messages of {} octets for {user} …", size.messages, size.octets);
            let messages = self.append(user, size);
            self.mailboxes.insert(user, Mailbox { user, size, messages });
        }
    }

    /// The mailbox of this user, which was filled before.
    pub(crate) fn mailbox(&self, user: &str) -> &Mailbox {
        &self.mailboxes[user]
    }

    /// Puts messages into somebody's mailbox, and lets the upstream learn their sizes, which it remembers.
    pub(crate) fn append(&self, user: &str, size: Size) -> Vec<(u64, Fingerprint)> {
        let mut imap = Imap::log_in(self.upstream.imap_port, user, PASSWORD);
        let numbers: Vec<_> = (1..=size.messages).collect();
        let mut known = Vec::new();
        for some in numbers.chunks((20_000_000 / size.octets).clamp(1, 1000)) {
            let messages: Vec<_> = some.iter().map(|&number| mail::message(number, size.octets)).collect();
            known.extend(messages.iter().map(|message| (mail::stuffed_length(message), mail::fingerprint(message))));
            imap.append(messages);
        }
        imap.command("UID FETCH 1:* (RFC822.SIZE)");
        known
    }
}

/// The mailboxes that these rows need.
pub(crate) fn mailboxes(choice: &Choice) -> Vec<(&'static str, Size)> {
    let all = [
        ("large", choice.size(5, 50_000_000)),
        ("many", choice.size(2000, 20_000)),
        ("few", choice.size(200, 20_000)),
        ("some", choice.size(60, 160_000)),
        ("several", choice.size(20, 640_000)),
        ("huge", choice.size(100_000, 300)),
    ];
    let needed = |user: &str| ROWS.iter().any(|row| row.mailbox == user && choice.wants(row));
    all.into_iter().filter(|(user, _)| needed(user)).collect()
}
