//! What a gateway holds while it works, and while its clients think.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{Round, retr};
use crate::{consumption, sheet::Sheet};

/// Four clients fetch a large message at once: by how much the gateway grows meanwhile.
pub(crate) fn growth(round: &Round<'_>, sheet: &mut Sheet) {
    let Some(gateway) = round.target.near.gateway else { return };
    let mailbox = round.scene.mailbox("large");
    let sessions: Vec<_> = (0..4).map(|_| retr::open(round.target.near.port, mailbox)).collect();
    let before = consumption::memory(gateway);
    let done = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(consumption::memory(gateway));
                thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let clients: Vec<_> = sessions
            .into_iter()
            .map(|mut pop3| {
                scope.spawn(move || {
                    assert_eq!(pop3.body("RETR 1").0, mailbox.messages[0].0);
                    pop3
                })
            })
            .collect();
        let clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        let peak = watch.join().unwrap();
        for pop3 in clients {
            pop3.quit();
        }
        peak
    });
    round.note(sheet, "growth", (peak - before) as f64 / 1e6);
}

/// Many clients have logged in and think: what a session holds.
pub(crate) fn idle(round: &Round<'_>, sheet: &mut Sheet) {
    let Some(gateway) = round.target.near.gateway.filter(|_| round.repetition == 0) else { return };
    let mailbox = round.scene.mailbox("few");
    let each = if round.smoke { 2 } else { 250 };
    retr::open(round.target.near.port, mailbox).quit();
    let before = consumption::memory(gateway);
    let sessions: Vec<_> = thread::scope(|scope| {
        let opening: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..each).map(|_| retr::open(round.target.near.port, mailbox)).collect::<Vec<_>>()))
            .collect();
        opening.into_iter().flat_map(|opening| opening.join().unwrap()).collect()
    });
    let grown = consumption::memory(gateway).saturating_sub(before);
    round.note(sheet, "idle", grown as f64 / 1e3 / sessions.len() as f64);
    for pop3 in sessions {
        pop3.quit();
    }
}
