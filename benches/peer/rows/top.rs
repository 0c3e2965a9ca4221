//! Headers alone are fetched.

use super::{Round, effort, milliseconds, retr};
use crate::{
    scene::{Mailbox, Place},
    sheet::{Sheet, median},
};

/// Of large messages, one after the other.
pub(crate) fn large(round: &Round<'_>, sheet: &mut Sheet) {
    if round.raw() {
        return;
    }
    let mailbox = round.scene.mailbox("large");
    let mut pop3 = retr::open(round.target.near.port, mailbox);
    let mut times = Vec::new();
    for number in (1..=mailbox.size.messages).cycle().take(20) {
        let begin = std::time::Instant::now();
        assert!(pop3.body(&format!("TOP {number} 0")).0 < 1000);
        times.push(milliseconds(begin.elapsed()));
    }
    pop3.quit();
    round.note(sheet, "top-large", median(&times));
}

/// Of many, by a client that does not wait.
pub(crate) fn near(round: &Round<'_>, sheet: &mut Sheet) {
    pipelined(round, round.target.near, round.scene.mailbox("many"), "top-near", sheet);
}

/// The same over a distance.
pub(crate) fn far(round: &Round<'_>, sheet: &mut Sheet) {
    pipelined(round, round.target.far, round.scene.mailbox("few"), "top-far", sheet);
}

fn pipelined(round: &Round<'_>, place: Place, mailbox: &Mailbox, key: &'static str, sheet: &mut Sheet) {
    if round.raw() {
        return;
    }
    let mut pop3 = retr::open(place.port, mailbox);
    let commands = (1..=mailbox.size.messages).map(|number| format!("TOP {number} 0"));
    let read = |pop3: &mut crate::pop3::Pop3, _| assert!(pop3.many(|_| ()) < 1000);
    let (_, effort) = effort(place, || pop3.pipeline(commands, retr::IN_FLIGHT, read));
    pop3.quit();
    round.note(sheet, key, mailbox.size.messages as f64 / effort.seconds);
}
