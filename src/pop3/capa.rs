//! The capability list (RFC 2449 §5). What is listed can be used: what cannot, or not on this channel, is left out.

use super::{reply::Reply, sasl::Mechanism, session::Channel};

/// Where in the session CAPA was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Authorization,
    Transaction,
}

/// The answer to CAPA. Every line is shorter than 64 octets, since fetchmail reads it into a buffer of that size, and
/// none is empty, since poplib looks at the first word of each.
pub(super) fn capabilities(channel: Channel, state: State) -> Reply {
    let mechanisms: String = Mechanism::ALL.iter().flat_map(|mechanism| [" ", mechanism.name()]).collect();
    let sasl = format!("SASL{mechanisms}");
    let before = state == State::Authorization;
    let lines = [
        (true, "TOP"),
        (true, "UIDL"),
        // Of no use after log-in, but to be announced in both states (RFC 2449 §5).
        (channel.login, "USER"),
        (channel.login, &sasl),
        (before && channel.offers_stls(), "STLS"),
        (true, "RESP-CODES"),
        (true, "AUTH-RESP-CODE"),
        (true, "PIPELINING"),
        (true, "EXPIRE NEVER"),
        // Who has not logged in need not know what we are.
        (!before, "IMPLEMENTATION popgate"),
    ];
    Reply::list("capability list follows", lines.into_iter().filter_map(|(listed, line)| listed.then_some(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(channel: Channel, state: State) -> Vec<String> {
        let reply = String::from_utf8(capabilities(channel, state).octets().to_vec()).unwrap();
        let mut lines: Vec<_> = reply.strip_suffix("\r\n").unwrap().split("\r\n").map(ToOwned::to_owned).collect();
        assert!(lines.remove(0).starts_with("+OK "));
        assert_eq!(lines.pop().as_deref(), Some("."));
        // T024
        assert!(lines.iter().all(|line| (1..64).contains(&line.len()) && line.is_ascii()));
        lines
    }

    #[test]
    fn what_is_listed_depends_on_channel_and_state() {
        let always = ["RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"];
        let sasl = "SASL PLAIN LOGIN XOAUTH2 OAUTHBEARER";
        let plain = Channel { encrypted: false, stls: true, login: false };
        let open = Channel { encrypted: false, stls: false, login: true };
        let tls = Channel { encrypted: true, stls: true, login: true };
        let cases: [(_, _, &[&str], &[&str]); 4] = [
            (plain, State::Authorization, &["TOP", "UIDL", "STLS"], &[]), // T021
            (open, State::Authorization, &["TOP", "UIDL", "USER", sasl], &[]),
            (tls, State::Authorization, &["TOP", "UIDL", "USER", sasl], &[]), // T022
            (tls, State::Transaction, &["TOP", "UIDL", "USER", sasl], &["IMPLEMENTATION popgate"]), // T023
        ];
        for (channel, state, first, last) in cases {
            assert_eq!(lines(channel, state), [first, &always, last].concat());
        }
    }
}
