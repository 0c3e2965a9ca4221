//! Messages are fetched and deleted, each time from a mailbox that was filled for it.

use std::time::Instant;

use super::{Round, milliseconds, retr};
use crate::{dovecot::PASSWORD, pop3::Pop3, sheet::Sheet};

/// Everything is fetched and deleted by a client that does not wait: the whole session.
pub(crate) fn near(round: &Round<'_>, sheet: &mut Sheet) {
    if round.raw() {
        return;
    }
    let user = round.scene.newcomer();
    let messages = round.scene.append(&user, round.scene.mailbox("many").size);
    let begin = Instant::now();
    let mut pop3 = Pop3::log_in(round.target.near.port, &user, PASSWORD);
    pop3.command("STAT");
    let commands = (1..=messages.len()).flat_map(|number| [format!("RETR {number}"), format!("DELE {number}")]);
    pop3.pipeline(commands, retr::IN_FLIGHT, |pop3, at| {
        if at % 2 == 0 {
            assert_eq!(pop3.many(|_| ()), messages[at / 2].0);
        } else {
            pop3.ok();
        }
    });
    pop3.quit();
    round.note(sheet, "delete-near", begin.elapsed().as_secs_f64());
    round.scene.forget(&user);
}

/// Everything is deleted over a distance: how long QUIT takes.
pub(crate) fn far(round: &Round<'_>, sheet: &mut Sheet) {
    if round.raw() {
        return;
    }
    let user = round.scene.newcomer();
    let mut size = round.scene.mailbox("few").size;
    if round.peer() && !round.smoke {
        // It looks at each message for a round trip before the first reply.
        size.messages /= 4;
    }
    round.scene.append(&user, size);
    let mut pop3 = Pop3::log_in(round.target.far.port, &user, PASSWORD);
    pop3.command("STAT");
    pop3.pipeline((1..=size.messages).map(|number| format!("DELE {number}")), retr::IN_FLIGHT, |pop3, _| {
        drop(pop3.ok())
    });
    round.note(sheet, "delete-far/quit", milliseconds(pop3.quit()));
    round.scene.forget(&user);
}
