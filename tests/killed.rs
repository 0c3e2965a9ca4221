//! F33: the program is killed with SIGKILL at every command that it sends once it is logged in, and started again on what
//! it has left on disk. Only this shows that a start needs no repair.

use std::{
    io::{Read as _, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::support::{
    pop3::Pop3,
    script::{Account, Content, Manner, Server, What},
    serve::{Popgate, on_a_port},
};

#[test]
fn a_start_needs_no_repair() {
    let running: Arc<Mutex<Option<Popgate>>> = Arc::default();
    // How many commands the program has left; 0 is any number.
    let left = Arc::new(AtomicUsize::new(0));
    let count = {
        let (running, left) = (Arc::clone(&running), Arc::clone(&left));
        What::Act(Arc::new(move |_: &mut Account| {
            if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1) {
                // Dropped is killed.
                drop(running.lock().unwrap().take());
            }
        }))
    };
    let server = Server::fixture(Manner::default().deviating("", 0, count));
    let url = on_a_port(&server);
    let directory = tempfile::tempdir().unwrap();
    let path = format!("cache.path={}", directory.path().join("listings").display());
    let start = || Popgate::serve(&url, &["--set", &path]);
    let uids = || server.with("tim", "INBOX", |inbox| inbox.uids());

    // What sessions wanted to be gone. What was sent before a program died may be carried out whenever the server comes to it.
    let (mut delivered, mut deleted) = (uids(), Vec::new());
    // The first program dies at the first command of its session, the second at the second, and so on.
    let mut step = 0;
    loop {
        step += 1;
        delivered.push(server.with("tim", "INBOX", |inbox| inbox.deliver(Content::Filler(500))));
        let popgate = start();
        let mut client = Pop3::connect(popgate.port);
        *running.lock().unwrap() = Some(popgate);
        left.store(step, Relaxed);
        client
            .line()
            .get_mut()
            .write_all(b"USER tim\r\nPASS sec ret\r\nUIDL 1\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n")
            .unwrap();
        let mut said = Vec::new();
        let _ = client.line().read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).into_owned();
        let unique_id = said.split_once("+OK 1 ").and_then(|(_, listed)| listed.get(..8));
        let first = unique_id.map(|unique_id| u32::from_str_radix(unique_id, 16).unwrap());
        deleted.extend(first);
        let there = uids();
        let is_kept = |uid: &u32| there.contains(uid) || deleted.contains(uid);
        assert!(delivered.iter().all(is_kept), "of {delivered:?} {there:?} are left, {deleted:?} were deleted: {said}");
        let is_gone = first.is_some_and(|first| !there.contains(&first));
        assert!(!said.contains("signing off") || is_gone, "{there:?}: {said}");
        if left.swap(0, Relaxed) > 0 {
            break;
        }
    }
    assert!(step > 6, "a session of {step} commands is none");
    drop(running.lock().unwrap().take());

    let popgate = start();
    let mut client = popgate.pop3("tim", "sec ret");
    for number in 1..=client.list("UIDL").len() {
        assert!(client.command(&format!("DELE {number}")).starts_with("+OK"));
    }
    assert_eq!(client.command("QUIT"), "+OK POP3 server signing off (0 messages left)");
    assert!(uids().is_empty());
    popgate.stop();
}
