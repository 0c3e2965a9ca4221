//! Strings as IMAP writes them: mailbox names, quoted strings (RFC 3501 §5.1.3, §9).

use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};

/// A mailbox name as an argument of SELECT: `INBOX` bare, everything else in modified UTF-7 and quotes. The name holds
/// no control characters; configuration sees to that.
pub(super) fn mailbox(name: &str) -> String {
    if name.eq_ignore_ascii_case("INBOX") {
        return "INBOX".to_owned();
    }
    quoted(&modified_utf7(name))
}

/// A quoted string. `text` holds printable ASCII only.
pub(super) fn quoted(text: &str) -> String {
    // Room for the worst, since what grows leaves copies behind, and this may be a password.
    let mut quoted = String::with_capacity(2 * text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Printable ASCII stands for itself, `&` is `&-`, all else is UTF-16 in base64 between `&` and `-`.
fn modified_utf7(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut shifted: Vec<u8> = Vec::new();
    for character in name.chars() {
        if matches!(character, ' '..='~') {
            unshift(&mut encoded, &mut shifted);
            encoded.push_str(if character == '&' { "&-" } else { "" });
            if character != '&' {
                encoded.push(character);
            }
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shifted.extend(unit.to_be_bytes());
            }
        }
    }
    unshift(&mut encoded, &mut shifted);
    encoded
}

fn unshift(encoded: &mut String, shifted: &mut Vec<u8>) {
    if shifted.is_empty() {
        return;
    }
    encoded.push('&');
    GeneralPurpose::new(&alphabet::IMAP_MUTF7, NO_PAD).encode_string(&shifted, encoded);
    encoded.push('-');
    shifted.clear();
}

/// The name in a LIST response (RFC 3501 §7.2.2) of a mailbox that is the trash (RFC 6154):
/// `(\HasNoChildren \Trash) "/" "Deleted Items"`. A name that is not printable ASCII, or comes as a literal, is none;
/// nor is a mailbox that cannot be selected.
pub(super) fn trash(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (attributes, rest) = line.strip_prefix('(')?.split_once(')')?;
    let is = |name: &str| attributes.split(' ').any(|attribute| attribute.eq_ignore_ascii_case(name));
    if !is("\\Trash") || is("\\NoSelect") || is("\\NonExistent") {
        return None;
    }
    let (_, rest) = string(rest.trim_start())?;
    let (name, rest) = string(rest.trim_start())?;
    let plain = !name.is_empty() && name.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    (plain && !name.starts_with('{') && rest.trim().is_empty()).then_some(name)
}

/// A quoted string or an atom, and what follows.
fn string(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut string = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((string, &inner[at + 1..])),
            '\\' => string.push(characters.next()?.1),
            _ => string.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        for (name, argument) in [
            ("inbox", "INBOX"),
            ("Archive/2026", "\"Archive/2026\""),
            ("a \"b\" \\c", "\"a \\\"b\\\" \\\\c\""),
            ("R&D", "\"R&-D\""),
            ("Entwürfe", "\"Entw&APw-rfe\""),
            ("~peter/mail/台北/日本語", "\"~peter/mail/&U,BTFw-/&ZeVnLIqe-\""),
            ("😀", "\"&2D3eAA-\""),
        ] {
            assert_eq!(mailbox(name), argument);
        }
    }

    #[test]
    fn the_trash_is_found_in_list_responses() {
        for (line, expected) in [
            (r#"(\HasNoChildren \Trash) "/" "Deleted Items""#, Some("Deleted Items")),
            (r#"(\trash) "." Trash"#, Some("Trash")),
            (r#"(\Trash) NIL "a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#"(\Trash) "\\" "[Gmail]/Papierkorb""#, Some("[Gmail]/Papierkorb")),
            (r#"(\Sent) "/" Trash"#, None),
            (r#"() "/" Trash"#, None),
            (r#"(\Trash \NonExistent) "/" Trash"#, None),
            (r#"(\Noselect \Trash) "/" Trash"#, None),
            (r#"(\Trash) "/" """#, None),
            (r#"(\Trash) "/" "open"#, None),
            (r"\Trash / x", None),
            (r#"(\Trash) "/" {5}"#, None),
        ] {
            assert_eq!(trash(line.as_bytes()).as_deref(), expected, "{line}");
        }
    }
}
