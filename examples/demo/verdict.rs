//! What a POP3 client must have received of a message, written down a second time in the plainest way: not by the code
//! that is being judged.

/// Compares what a client received with what the mailbox holds. The difference is told in a sentence.
pub(crate) fn unchanged(file: &str, held: &[u8], received: &[u8]) -> Result<(), String> {
    let expected = in_lines(held);
    let differs = expected.iter().zip(received).position(|(expected, received)| expected != received);
    match differs {
        Some(at) => Err(format!(
            "{file} came back changed: octet {at} is {:#04x} and should be {:#04x}",
            received[at], expected[at],
        )),
        None if received.len() != expected.len() => {
            Err(format!("{file} came back with {} octets and should have {}", received.len(), expected.len()))
        }
        None => Ok(()),
    }
}

/// A message as lines that end in CRLF, which is how POP3 sends everything (RFC 1939 §3): an LF gets the CR that it
/// lacks, as does the last line its end. A CR alone is left alone, but for one before a dot: clients that end a line there
/// would take the dot for the end of the message.
fn in_lines(held: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    for octet in held {
        match (lines.last(), octet) {
            (Some(b'\r'), b'.') => lines.push(b'\n'),
            (Some(b'\r'), b'\n') => {}
            (_, b'\n') => lines.push(b'\r'),
            _ => {}
        }
        lines.push(*octet);
    }
    match lines.last() {
        None | Some(b'\n') => {}
        Some(b'\r') => lines.push(b'\n'),
        Some(_) => lines.extend(b"\r\n"),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_made_whole_and_nothing_else() {
        for (held, expected) in [
            ("", ""),
            ("a\r\n.\r\n", "a\r\n.\r\n"),
            ("a\n\n.b", "a\r\n\r\n.b\r\n"),
            ("a\rb\r.c\r", "a\rb\r\n.c\r\n"),
            ("\r\r\n", "\r\r\n"),
        ] {
            assert_eq!(String::from_utf8(in_lines(held.as_bytes())).unwrap(), expected, "{held:?}");
        }
    }

    #[test]
    fn any_changed_or_missing_octet_is_noticed() {
        let held = b"Subject: dots\r\n\r\n.\r\n..\r\nend\r\n";
        assert_eq!(unchanged("dots.eml", held, held), Ok(()));
        for at in 0..held.len() {
            let mut changed = held.to_vec();
            changed[at] ^= 1;
            let sentence = unchanged("dots.eml", held, &changed).unwrap_err();
            assert!(sentence.starts_with(&format!("dots.eml came back changed: octet {at} is ")), "{sentence}");
            let sentence = unchanged("dots.eml", held, &held[..at]).unwrap_err();
            assert_eq!(sentence, format!("dots.eml came back with {at} octets and should have {}", held.len()));
        }
        assert!(unchanged("dots.eml", held, &[held, b"\r\n".as_slice()].concat()).is_err());
    }
}
