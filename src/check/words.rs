//! What popgate will do with a server, and what somebody should know about it, in words. Before log-in much is not known,
//! and then the words say so.

use crate::{
    gateway::Maildrops,
    mail::{Deletion, TokenMechanism},
    pop3::unique_id::Template,
    upstream::imap::{ByPassword, Examined, Offer, OnDelete, Removal, Settings, Survey},
};

use super::report::{Paths, Tls};

/// The ways that popgate takes with a server; `None` if it said nothing.
pub(super) fn paths(survey: &Survey, settings: &Settings, maildrops: &Maildrops) -> Option<Paths> {
    let offer = survey.offered.as_ref()?;
    let tells = maildrops.send_client_address && has_id(offer);
    Some(Paths {
        login: format!("{}{}", if tells { "ID with the client's address, and with it " } else { "" }, login(offer)),
        listing: listing(survey),
        deletion: match &survey.mailbox {
            Some(mailbox) => deletion(mailbox, survey, settings),
            None => deletion_before_login(offer, settings),
        },
        unique_ids: unique_ids(survey.mailbox.as_ref(), &maildrops.unique_ids),
    })
}

/// What DELE would do.
pub(super) fn dele(mailbox: &Examined) -> String {
    match (mailbox.snapshot.deletion(), &mailbox.removal) {
        (Deletion::Allowed, Removal::Nothing) => {
            "accepted; the message is gone for the session, and back in the next one".to_owned()
        }
        (Deletion::Allowed, removal) => {
            let does = match removal {
                Removal::Move(trash) => format!("moves the message to {trash}"),
                Removal::Hide => "hides the message, which stays on the server".to_owned(),
                _ => "removes the message from the server".to_owned(),
            };
            let keeps = if *removal == Removal::Hide { " and it keeps keywords" } else { "" };
            format!(
                "accepted, and QUIT {does}, if the user may write to the mailbox{keeps}: EXAMINE does not show that"
            )
        }
        (Deletion::ReadOnly, _) => "refused: the mailbox is read-only".to_owned(),
        (Deletion::Unsupported, _) => "refused: the server offers no safe way to delete single messages".to_owned(),
    }
}

/// What somebody should know.
pub(super) fn warnings(survey: &Survey, settings: &Settings, maildrops: &Maildrops, tls: Option<&Tls>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(days) = tls.and_then(|tls| tls.certificate.as_ref()).map(|certificate| certificate.days_left) {
        match days {
            ..0 => warnings.push("the certificate has expired".to_owned()),
            0..=SOON => warnings.push(format!("the certificate expires in {days} days")),
            _ => {}
        }
    }
    if let Some(Offer { password: None, token, .. }) = &survey.offered {
        warnings.push(match token {
            Some(_) => "the server takes no passwords: only clients that bring a token can log in".to_owned(),
            None => "the server takes neither passwords nor tokens: nobody can log in".to_owned(),
        });
    }
    if maildrops.send_client_address && survey.offered.as_ref().is_some_and(|offer| !has_id(offer)) {
        warnings
            .push("the server does not offer ID before log-in, so that it is not told where clients are".to_owned());
    }
    if survey.has("X-GM-EXT-1") {
        warnings.push(match settings.on_delete {
            None => "this is Gmail: deleted messages go to its trash, since what expunging does there is up to the user's settings",
            Some(OnDelete::Expunge) => "this is Gmail: what becomes of expunged messages is up to the user's settings there",
            Some(OnDelete::Ignore) => "this is Gmail: messages that clients delete stay there",
        }.to_owned());
    }
    if survey.granted.is_some() && !survey.has("UIDPLUS") && !survey.has("IMAP4REV2") {
        warnings.push("the server does not offer UIDPLUS, so that single messages cannot be expunged".to_owned());
    }
    if let Some(mailbox) = &survey.mailbox {
        if mailbox.snapshot.uid_validity().is_none() {
            warnings.push("the server's UIDs do not outlive a session (UIDNOTSTICKY), so UIDL is refused and a lost line cannot be replaced".to_owned());
        }
        if !mailbox.unlisted.is_empty() {
            let uids: Vec<_> = mailbox.unlisted.iter().map(ToString::to_string).collect();
            warnings.push(format!(
                "the server does not list UID {}: POP3 clients can neither fetch nor delete what is there",
                uids.join(", ")
            ));
        }
    }
    warnings
}

fn has_id(offer: &Offer) -> bool {
    offer.capabilities.iter().any(|name| name.eq_ignore_ascii_case("ID"))
}

fn login(offer: &Offer) -> String {
    let password = match offer.password {
        Some(ByPassword::PlainAtOnce) => "AUTHENTICATE PLAIN with the first response on the same line",
        Some(ByPassword::Plain) => "AUTHENTICATE PLAIN, and the response when the server asks for it (no SASL-IR)",
        Some(ByPassword::Login) => "LOGIN (no AUTH=PLAIN)",
        None => "not with a password: neither AUTH=PLAIN nor LOGIN is offered",
    };
    let token = match offer.token {
        Some(TokenMechanism::XOAuth2)
            if offer.capabilities.iter().any(|name| name.eq_ignore_ascii_case("AUTH=OAUTHBEARER")) =>
        {
            "; AUTHENTICATE XOAUTH2 or OAUTHBEARER, as the client does, for clients that bring a token"
        }
        Some(TokenMechanism::XOAuth2) => "; AUTHENTICATE XOAUTH2 for clients that bring a token",
        Some(TokenMechanism::OAuthBearer) => "; AUTHENTICATE OAUTHBEARER for clients that bring a token",
        None => "",
    };
    format!("{password}{token}")
}

fn listing(survey: &Survey) -> String {
    let search =
        if survey.has("ESEARCH") || survey.has("IMAP4REV2") { "UID SEARCH RETURN (ALL)" } else { "UID SEARCH" };
    format!("SELECT and UID FETCH 1:* (RFC822.SIZE) in one flight, counted against EXISTS; {search} where they differ")
}

fn deletion(mailbox: &Examined, survey: &Survey, settings: &Settings) -> String {
    match (mailbox.snapshot.deletion(), &mailbox.removal) {
        (Deletion::Allowed, removal) => removal_in_words(removal),
        (Deletion::ReadOnly, _) => r"DELE is refused: the mailbox does not let \Deleted be set".to_owned(),
        (Deletion::Unsupported, _) if survey.has("X-GM-EXT-1") && settings.on_delete.is_none() => {
            r"DELE is refused: on Gmail messages are moved to the trash, and no \Trash or no MOVE was found".to_owned()
        }
        (Deletion::Unsupported, _) => {
            "DELE is refused: the server has neither UIDPLUS nor a trash to MOVE to, and the mailbox keeps no keywords"
                .to_owned()
        }
    }
}

fn deletion_before_login(offer: &Offer, settings: &Settings) -> String {
    match &offer.removal {
        Some(Removal::Nothing) => removal_in_words(&Removal::Nothing),
        Some(removal) => {
            format!("{}, if the mailbox allows it: that is not known before log-in", removal_in_words(removal))
        }
        None if offer.capabilities.iter().any(|it| it.eq_ignore_ascii_case("X-GM-EXT-1"))
            && settings.on_delete.is_none() =>
        {
            "UID MOVE to the trash (Gmail), if there is one: that is not known before log-in, see --user".to_owned()
        }
        None => "not known before log-in: many servers offer UIDPLUS and MOVE to users only, see --user".to_owned(),
    }
}

fn removal_in_words(removal: &Removal) -> String {
    match removal {
        Removal::Expunge => r"UID STORE \Deleted, UID EXPUNGE, then a count of what is left".to_owned(),
        Removal::Move(trash) => format!("UID MOVE to {trash}, then a count of what is left"),
        Removal::Hide => {
            r"UID STORE \Deleted $POP3Deleted, which hides messages from POP3 clients; they stay on the server"
                .to_owned()
        }
        Removal::Nothing => {
            "none, as on_delete = \"ignore\" wants it: deleted messages are back in the next session".to_owned()
        }
    }
}

fn unique_ids(mailbox: Option<&Examined>, template: &Template) -> String {
    match mailbox {
        Some(mailbox) if mailbox.snapshot.uid_validity().is_none() => {
            "UIDL is refused: the server's UIDs do not outlive a session".to_owned()
        }
        _ => format!("{template}, as maildrop.uidl has it"),
    }
}

/// Certificates are renewed a month or more before they expire, where that is done by itself.
const SOON: i64 = 14;
