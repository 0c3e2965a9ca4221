//! What must hold of a client's line that becomes TLS, besides what must of every session: whoever is on the way can hear
//! and change what is said in the clear, and comes no further. The client is careless and says its password in the clear
//! if it is refused TLS. popgate does not take it.

use super::{
    judge::exchanges,
    recordings::{Recording, Tls},
    session::{Cut, Leg, Played},
};
use crate::support::faulty::Tape;

/// What was in the clear and must not be, and what came of it within TLS.
pub(super) fn leaks(recording: &Recording, cut: Cut, recorded: &Played, played: &Played) -> Vec<String> {
    if !matches!(recording.tls, Tls::Everywhere | Tls::Client) {
        return Vec::new();
    }
    let mut leaks = Vec::new();
    let (clear, wire) = (&played.client_clear, &played.client_wire);
    let behind = &wire.said[clear.said.len()..];
    if !is_tls(behind) {
        leaks.push(format!("said in the clear when TLS had begun: {}", behind.escape_ascii()));
    }
    if recording.tls == Tls::Client {
        let (_, exchanges, _) = exchanges(clear);
        if exchanges.iter().any(|exchange| exchange.command.starts_with("PASS ") && exchange.is_ok()) {
            leaks.push("the password is taken in the clear".into());
        }
    }
    if within(played).is_empty() {
        // A line that was kept may be left meanwhile.
        let is_silent =
            |tape: &Tape| tape.said.split_inclusive(|octet| *octet == b'\n').all(|line| line.ends_with(b" LOGOUT\r\n"));
        if recording.tls == Tls::Client && !played.upstream.iter().all(is_silent) {
            leaks.push("without TLS with the client something is said to the server".into());
        }
        return leaks;
    }
    let mut lines = clear.heard.split_inclusive(|octet| *octet == b'\n');
    if recording.tls == Tls::Client && !(lines.any(|line| line == b"STLS\r\n") && lines.next().is_none()) {
        leaks.push(format!("TLS has begun behind this: {}", clear.heard.escape_ascii()));
    }
    // Whatever becomes of such a line, be it octets that nobody sent, within TLS it is as if nothing had, up to its end.
    if cut.leg == Leg::Client && !within(recorded).starts_with(within(played)) {
        leaks.push(format!("within TLS this was said: {}", within(played).escape_ascii()));
    }
    leaks
}

/// What popgate said within TLS.
fn within(played: &Played) -> &[u8] {
    &played.client.said[played.client_clear.said.len()..]
}

/// Whether these are TLS records, of which the last one may be torn.
fn is_tls(mut octets: &[u8]) -> bool {
    while let [kind, rest @ ..] = octets {
        if !(0x14..=0x17).contains(kind) {
            return false;
        }
        octets = match rest {
            [_, _, high, low, rest @ ..] => {
                rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default()
            }
            _ => &[],
        };
    }
    true
}
