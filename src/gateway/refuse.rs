//! What a client gets to read when something failed upstream. The cause is for the log; upstream's own words go on only
//! where they are meant for a person, and the maker of replies filters them.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::{
    pop3::reply::{Code, Reply},
    upstream::{Fault, Verdict},
};

/// The answer to a log-in.
pub(super) fn login(fault: &Fault) -> Reply {
    let reply = match fault.verdict {
        Verdict::Denied => Reply::denied(),
        Verdict::Busy => Reply::in_use(),
        Verdict::Passing | Verdict::Changed => Reply::unavailable(),
        Verdict::Lasting => Reply::cannot_open(),
    };
    noting(reply, fault)
}

/// The answer to RETR or TOP of a message that could not be had. The client is logged in, so that neither its password nor
/// another session is to blame.
pub(super) fn message(fault: &Fault) -> Reply {
    match fault.verdict {
        Verdict::Denied | Verdict::Busy | Verdict::Passing => Reply::message_unavailable(),
        Verdict::Changed => Reply::maildrop_changed(),
        Verdict::Lasting => {
            noting(Reply::coded(Code::SysPerm, "message cannot be read, contact the administrator"), fault)
        }
    }
}

/// The code of the answer to QUIT when messages were left.
pub(super) const fn update(fault: &Fault) -> Code {
    match fault.verdict {
        Verdict::Denied | Verdict::Busy | Verdict::Passing | Verdict::Changed => Code::SysTemp,
        Verdict::Lasting => Code::SysPerm,
    }
}

/// Tells the administrator what went wrong, and how urgent it is.
pub(super) fn log(fault: &Fault, what: &str) {
    let (verdict, cause) = (fault.verdict, fault.cause.as_str());
    match verdict {
        Verdict::Lasting => warn!(%verdict, cause, "{what}"),
        _ => info!(%verdict, cause, "{what}"),
    }
}

/// The same for a log-in.
pub(super) fn log_login(fault: &Fault, user: &str, peer: IpAddr) {
    let (verdict, cause) = (fault.verdict, fault.cause.as_str());
    match verdict {
        Verdict::Lasting => warn!(user, %peer, %verdict, cause, "log-in failed"),
        _ => info!(user, %peer, %verdict, cause, "log-in failed"),
    }
}

fn noting(reply: Reply, fault: &Fault) -> Reply {
    match &fault.notice {
        Some(notice) => reply.noting(notice),
        None => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_become_codes() {
        // G.2, G.3, F-22: [AUTH] is for credentials alone.
        let cases = [
            (Verdict::Denied, Code::Auth, Code::SysTemp, Code::SysTemp),
            (Verdict::Busy, Code::InUse, Code::SysTemp, Code::SysTemp),
            (Verdict::Passing, Code::SysTemp, Code::SysTemp, Code::SysTemp),
            (Verdict::Lasting, Code::SysPerm, Code::SysPerm, Code::SysPerm),
            (Verdict::Changed, Code::SysTemp, Code::SysTemp, Code::SysTemp),
        ];
        for (verdict, at_login, of_message, at_end) in cases {
            let fault = Fault::new(verdict, "hush");
            let replies = [login(&fault), message(&fault)];
            assert_eq!(replies.each_ref().map(Reply::code), [Some(at_login), Some(of_message)]);
            assert_eq!(update(&fault), at_end);
            assert!(replies.iter().all(|reply| !reply.octets().windows(4).any(|octets| octets == b"hush")));
        }
    }

    #[test]
    fn words_for_a_person_are_passed_on() {
        // T088, T096
        let mut fault = Fault::new(Verdict::Denied, "hush");
        fault.notice = Some("[IN-USE] trick\r\n+OK web browser".to_owned());
        let expected = "-ERR [AUTH] invalid user name or password: [IN-USE] trick??+OK web browser\r\n";
        assert_eq!(login(&fault).octets(), expected.as_bytes());
    }
}
