//! Before anything is timed: every message comes through every target as it is.

use crate::{
    dovecot::PASSWORD,
    imap::{Imap, Piece},
    mail,
    pop3::Pop3,
    scene::{Mailbox, Target},
};

/// Fetches all messages, and compares their fingerprints with those of what was put in.
pub(crate) fn verify(target: &Target, mailbox: &Mailbox) {
    let check = |at: usize, message: &[u8]| {
        let (expected, found) = (mailbox.messages[at].1, mail::fingerprint(message));
        let words =
            || format!("{}: message {} of {} came as {}", target.name, at + 1, mailbox.user, mail::hexadecimal(&found));
        assert!(expected == found, "{}", words());
    };
    if target.name == "raw" {
        let mut imap = Imap::log_in(target.near.port, mailbox.user, PASSWORD);
        let (mut message, mut expected, mut at) = (Vec::new(), 0, 0);
        imap.fetch(&["UID FETCH 1:* (BODY.PEEK[])".to_owned()], |piece| {
            match piece {
                Piece::Begin(octets) => {
                    message.clear();
                    expected = octets;
                }
                Piece::Octets(octets) => message.extend_from_slice(octets),
            }
            if message.len() == expected {
                check(at, &message);
                at += 1;
            }
        });
        assert_eq!(at, mailbox.size.messages);
        return;
    }
    let mut pop3 = Pop3::log_in(target.near.port, mailbox.user, PASSWORD);
    let count = format!("+OK {} ", mailbox.size.messages);
    assert!(pop3.command("STAT").starts_with(&count));
    for at in 0..mailbox.size.messages {
        check(at, &mail::unstuffed(&pop3.octets(&format!("RETR {}", at + 1))));
    }
    pop3.quit();
}
