//! What is wrong with a configuration, in one form: where it stands, which key, what was found, what is allowed.

use std::fmt;

use super::keys;

/// All problems that were found, at least one; each a paragraph.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Error(pub Vec<Problem>);

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file, the environment's variable or the option; `None` where the key is set nowhere.
    pub source: Option<String>,
    /// The key in full, or the line of a file that cannot be read as TOML.
    pub key: String,
    /// What was found, as the first half of a sentence.
    pub found: String,
    /// What is allowed or needed, as its second half.
    pub instead: String,
}

impl Problem {
    /// There is no such key.
    pub(super) fn unknown(source: Option<String>, key: &str) -> Self {
        Self {
            source,
            key: key.to_owned(),
            found: "there is no such key".to_owned(),
            instead: format!("nearest: {}", keys::nearest(key)),
        }
    }

    /// A key's value is not one of those that it can have.
    pub(super) fn value(source: Option<String>, key: &str, found: impl fmt::Display) -> Self {
        Self {
            source,
            key: key.to_owned(),
            found: format!("found {found}"),
            instead: format!("allowed: {}", keys::allowed(key)),
        }
    }
}

/// A text in quotes, as it was found.
pub(super) fn quoted(text: &str) -> String {
    masked(text).map_or_else(|| format!("{text:?}"), |masked| format!("\"{masked}\""))
}

/// A URL without what stands before its host, if a password could be there: who writes one shall not read it again in the
/// log of the service manager. What is no URL, for want of a slash say, is none because of a slip.
pub(super) fn masked(text: &str) -> Option<String> {
    let (before, host) = text.rsplit_once('@').filter(|(before, _)| before.contains(':'))?;
    let is_scheme = |text: &str| text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'+');
    let scheme = before.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
    Some(scheme.map_or_else(|| format!("…@{host}"), |scheme| format!("{scheme}://…@{host}")))
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{}: ", in_a_line(source))?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", in_a_line(&self.key))?;
        }
        write!(f, "{}; {}", in_a_line(&self.found), in_a_line(&self.instead))
    }
}

/// With everything escaped that would not be seen: a key may be any text, and none of it is for a terminal to obey.
fn in_a_line(text: &str) -> String {
    let is_plain = |letter: char| matches!(letter, '"' | '\'' | '\\') || letter.escape_debug().count() == 1;
    let shown = |letter: char| if is_plain(letter) { letter.into() } else { letter.escape_default().to_string() };
    text.chars().map(shown).collect()
}
