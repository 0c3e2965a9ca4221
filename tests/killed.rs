//! F33: the program is killed with SIGKILL at every command that it sends, and started again on what it has left on disk.
//! Only this shows that a start needs no repair.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, Mutex},
};

use crate::support::{
    pop3::Pop3,
    script::{Account, Content, Manner, Server, What},
    serve::{Popgate, on_a_port},
};

/// More than a session has commands upstream.
const STEPS: usize = 12;

#[test]
fn a_start_needs_no_repair() {
    let running: Arc<Mutex<Option<Popgate>>> = Arc::default();
    let kill = {
        let running = Arc::clone(&running);
        // Dropped is killed.
        What::Act(Arc::new(move |_: &mut Account| drop(running.lock().unwrap().take())))
    };
    // The first program dies at its first command, the second at its second, and so on.
    let at = (1..=STEPS).map(|step| step * (step + 1) / 2);
    let manner = at.fold(Manner::default(), |manner, nth| manner.deviating("", nth, kill.clone()));
    let server = Server::fixture(manner);
    let url = on_a_port(&server);
    let directory = tempfile::tempdir().unwrap();
    let path = format!("cache.path={}", directory.path().join("listings").display());
    let start = || Popgate::serve(&url, &["--set", &path]);
    let uids = || server.with("tim", "INBOX", |inbox| inbox.uids());

    // What sessions wanted to be gone. What was sent before a program died may be carried out whenever the server comes to it.
    let (mut delivered, mut deleted) = (uids(), Vec::new());
    while server.struck().contains(&0) {
        delivered.push(server.with("tim", "INBOX", |inbox| inbox.deliver(Content::Filler(500))));
        let popgate = start();
        let port = popgate.port;
        *running.lock().unwrap() = Some(popgate);
        let mut client = Pop3::connect(port);
        client
            .line()
            .get_mut()
            .write_all(b"USER tim\r\nPASS sec ret\r\nUIDL 1\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
            .unwrap();
        let mut said = Vec::new();
        let _ = client.line().read_to_end(&mut said);
        drop(running.lock().unwrap().take());
        let said = String::from_utf8_lossy(&said).into_owned();
        let unique_id = said.split_once("+OK 1 ").and_then(|(_, listed)| listed.get(..8));
        let first = unique_id.map(|unique_id| u32::from_str_radix(unique_id, 16).unwrap());
        deleted.extend(first);
        let left = uids();
        let kept = |uid: &u32| left.contains(uid) || deleted.contains(uid);
        assert!(delivered.iter().all(kept), "of {delivered:?} {left:?} are left, and {deleted:?} were deleted: {said}");
        let is_gone = first.is_some_and(|first| !left.contains(&first));
        assert!(!said.contains("signing off") || is_gone, "{left:?}: {said}");
    }

    let popgate = start();
    let mut client = popgate.pop3("tim", "sec ret");
    for number in 1..=client.list("UIDL").len() {
        assert!(client.command(&format!("DELE {number}")).starts_with("+OK"));
    }
    assert_eq!(client.command("QUIT"), "+OK POP3 server signing off (0 messages left)");
    assert!(uids().is_empty());
    popgate.stop();
}
