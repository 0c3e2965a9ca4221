//! Plays every dialogue of `tests/transcripts`, once on roomy lines and once on lines of eight octets, on which every line
//! arrives in crumbs; by a popgate that keeps nothing for the next session, and by one that keeps listing and line. Only
//! these say what a client reads and what an upstream hears, word for word. All of it happens at TRACE, and no password
//! and no token is in what is logged then (F-19).

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, sync::Arc};

use popgate::{
    gateway::{Gateway, Lock, Peer, Route, Routes, Seen, serve},
    net::{
        Accept, Dial,
        tls::{Acceptor, Connector},
    },
    upstream::{
        imap::{self, Budget, Deleted, Imap, OnDelete, Security},
        sparing::Sparing,
    },
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    chat::{Options, Score, Serve, play},
    gate::{self, Memory},
    overheard::Overheard,
    script::SECRETS,
    tls,
};

macro_rules! folders {
    ($($folder:ident),*) => {
        $(#[test]
        fn $folder() {
            play_all(stringify!($folder));
        })*

        /// A folder that nobody plays would be a test that nobody runs.
        #[test]
        fn every_folder_is_played() {
            let known: BTreeSet<String> = [$(stringify!($folder)),*, "parts"].map(String::from).into();
            let folders = fs::read_dir("tests/transcripts").unwrap();
            let found = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(known, found);
        }
    };
}

folders!(ahead, limits, list, login, mapping, quit, regression, retr, sasl, snapshot, stls, top);

/// Plays one folder. `TRANSCRIPT=part-of-a-name` plays only some.
fn play_all(folder: &str) {
    let wanted = std::env::var("TRANSCRIPT").unwrap_or_default();
    let files = fs::read_dir(Path::new("tests/transcripts").join(folder)).unwrap();
    let names = files.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let names: BTreeSet<String> = names.map(|name| format!("{folder}/{name}")).collect();
    let log = Overheard::begin(&SECRETS);
    let failures: Vec<String> =
        names.iter().filter(|name| name.contains(&wanted)).filter_map(|name| failure(name)).collect();
    let (secrets, octets) = log.end();
    assert!(octets > 0 || !wanted.is_empty(), "nothing was logged");
    assert_eq!(secrets, BTreeSet::new(), "{folder}");
    assert!(failures.is_empty(), "{} of {} differ\n\n{}", failures.len(), names.len(), failures.join("\n"));
}

/// What is wrong with a transcript.
fn failure(name: &str) -> Option<String> {
    let score = match Score::load(name) {
        Ok(score) => score,
        Err(fault) => return Some(fault),
    };
    let capacities: &[usize] = if score.options.value("crumbs") == Some("no") { &[65_536] } else { &[65_536, 8] };
    let memories: &[Memory] = match score.options.value("memory") {
        Some("no") => &[Memory::Nothing],
        _ => &[Memory::Nothing, Memory::Everything],
    };
    let ways = capacities.iter().flat_map(|capacity| memories.iter().map(move |memory| (*capacity, *memory)));
    ways.into_iter().find_map(|(capacity, memory)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let house = |options: &Options, dial| house(options, memory, dial);
        let played = runtime.block_on(play(&score, capacity, memory == Memory::Everything, house));
        played.err().map(|dialogue| format!("{}{dialogue}", memory.words()))
    })
}

/// A popgate as a transcript's options want it.
fn house(options: &Options, memory: Memory, dial: Arc<dyn Dial>) -> Serve {
    const KNOWN: [&str; 13] = [
        "ahead",
        "crumbs",
        "deleted",
        "lock",
        "memory",
        "on_delete",
        "peer",
        "seen",
        "send_client_address",
        "tls",
        "trust",
        "uidl",
        "upstream",
    ];
    assert!(options.keys().all(|key| KNOWN.contains(&key)), "an option is none of {KNOWN:?}");
    let mut upstream = gate::upstream();
    if options.value("upstream") == Some("starttls") {
        upstream.security = Security::StartTls;
    }
    upstream.read_ahead = options.value("ahead") == Some("yes");
    upstream.on_delete = match options.value("on_delete") {
        Some("expunge") => Some(OnDelete::Expunge),
        Some("ignore") => Some(OnDelete::Ignore),
        _ => None,
    };
    upstream.deleted = match options.value("deleted") {
        Some("hide") => Deleted::Hide,
        Some("own") => Deleted::Own,
        _ => Deleted::Show,
    };
    let mut maildrops = gate::maildrops();
    maildrops.unique_ids = options.value("uidl").unwrap_or("dovecot").parse().unwrap();
    maildrops.seen = match options.value("seen") {
        Some("retr") => Seen::Retr,
        Some("never") => Seen::Never,
        _ => Seen::Quit,
    };
    maildrops.send_client_address = options.value("send_client_address") == Some("yes");
    if options.value("lock") == Some("gateway") {
        maildrops.lock = Lock::Gateway;
    }
    let identity = tls::identity();
    let connector = match options.value("trust") {
        Some("no") => Connector::new(None).unwrap(),
        _ => identity.connector.clone(),
    };
    let budget = Budget::new(imap::AHEAD);
    let imap = Imap::with(upstream, dial, Some(connector), budget, Some(Arc::new(Sparing::new(500))));
    let route = Route::new(gate::way(memory, imap), maildrops);
    let acceptor = (options.value("tls") == Some("stls"))
        .then(|| Arc::new(Acceptor::load(&identity.certificate, &identity.key).unwrap()) as Arc<dyn Accept>);
    let gateway = Arc::new(Gateway::new(Routes::new(Some(route), None), gate::settings(), acceptor));
    let address = SocketAddr::new(options.value("peer").unwrap_or("192.0.2.7").parse().unwrap(), 50_000);
    let encrypted = !matches!(options.value("tls"), Some("stls" | "no"));
    Box::new(move |wire| {
        let peer = Peer { address, client: address, encrypted, permit: None };
        tokio::spawn(serve(Arc::clone(&gateway), wire, peer, CancellationToken::new()))
    })
}
