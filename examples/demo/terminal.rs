//! What terminals are like: how wide, how coloured, and which text they can be given in so many columns.

use std::{
    env,
    process::{Command, Stdio},
};

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paint {
    Command,
    Success,
    Failure,
    Plain,
    Faint,
}

impl Paint {
    /// The text in this paint (ECMA-48, SGR).
    pub(crate) fn on(self, text: &str) -> String {
        let code = match self {
            Self::Command => "1;36",
            Self::Success => "32",
            Self::Failure => "1;31",
            Self::Plain => return text.to_owned(),
            Self::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// How many columns there are: what COLUMNS says, or for a terminal `stty`, where there is one.
pub(crate) fn columns(terminal: bool) -> Option<usize> {
    if let Some(columns) = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()) {
        return Some(columns);
    }
    if !terminal {
        return None;
    }
    let stty = Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    let size = String::from_utf8(stty.stdout).ok()?;
    size.split_ascii_whitespace().nth(1)?.parse().ok().filter(|columns| *columns > 0)
}

/// What a terminal can be given: nothing that could move the cursor or do worse.
pub(crate) fn printable(octets: &[u8]) -> String {
    let picture = |character: char| match character {
        '\0'..='\x1f' => char::from_u32(0x2400 + character as u32).unwrap_or('·'),
        '\x7f' => '␡',
        control if control.is_control() => '·',
        other => other,
    };
    String::from_utf8_lossy(octets).chars().map(picture).collect()
}

/// Cuts a text to so many columns, and says so.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let characters = text.chars().count();
    let sign = if characters < LONG { "…".to_owned() } else { format!("… {characters} characters") };
    let mut fitted = String::new();
    let mut left = columns.saturating_sub(width(&sign));
    for character in text.chars() {
        let Some(rest) = left.checked_sub(columns_of(character)) else { break };
        left = rest;
        fitted.push(character);
    }
    fitted + &sign
}

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Two for what East Asian scripts write wide, roughly, and one for everything else.
const fn columns_of(character: char) -> usize {
    match character {
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' => 2,
        '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{1f300}'..='\u{1faff}' => 2,
        _ => 1,
    }
}

/// A line of so many characters tells how many it has.
const LONG: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_and_cannot_move_the_cursor() {
        for (text, columns, fitted) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("北北", 4, "北北"),
            ("北北", 3, "北…"),
            ("北北", 2, "…"),
            (&"x".repeat(20_000), 22, "xxxx… 20000 characters"),
        ] {
            assert_eq!(fit(text, columns), fitted);
        }
        assert_eq!(printable(b"a\x1b[2J\r\0\x7f\xff"), "a␛[2J␍␀␡\u{fffd}");
    }
}
