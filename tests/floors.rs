//! Holds the source to the picture in the crate's documentation: which room may see which, and what the POP3 core must
//! not know. Catches what compiles and passes every other test, but lets the rooms grow together.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms, and the rooms that each may see besides itself.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("main", EVERYTHING),
    ("cli", EVERYTHING),
    ("config", EVERYTHING),
    ("telemetry", EVERYTHING),
    ("server", EVERYTHING),
    ("admin", &["gateway", "upstream", "net"]),
    ("check", EVERYTHING),
    ("probe", EVERYTHING),
    ("fuzzing", EVERYTHING),
    ("gateway", &["pop3", "upstream", "accounts", "mail", "net", "store"]),
    ("pop3", &["mail"]),
    ("upstream", &["mail", "net"]),
    ("accounts", &["mail", "net", "store"]),
    ("mail", &[]),
    ("net", &["mail"]),
    ("store", &["mail"]),
];

const EVERYTHING: &[&str] = &[
    "cli",
    "config",
    "telemetry",
    "server",
    "admin",
    "check",
    "probe",
    "gateway",
    "pop3",
    "upstream",
    "accounts",
    "mail",
    "net",
    "store",
];

/// What a function from lines to steps has no use for.
const NOT_PURE: &[&str] = &["tokio", "async", "await", "Instant", "SystemTime", "tracing", "rand", "futures_util"];
const NOT_PURE_IN_STD: &[&str] = &["time", "io", "net", "fs", "thread", "env", "process"];

/// Words of a protocol that a room does not speak.
const FOREIGN: &[(&str, &str)] = &[("pop3", "imap"), ("upstream", "pop3"), ("mail", "imap"), ("mail", "pop3")];

#[test]
fn rooms_see_only_what_is_below_them() {
    let found: Vec<_> = sources().iter().flat_map(|(file, text)| trespasses(file, &tokens(text))).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_pop3_core_is_pure_and_no_room_speaks_the_others_language() {
    let found: Vec<_> = sources().iter().flat_map(|(file, text)| impurities(file, &tokens(text))).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// F-02 stands on this: what asks for deletion comes from a QUIT that was read, and from nowhere else.
#[test]
fn changes_are_made_in_one_place() {
    let places: Vec<_> = sources()
        .iter()
        .filter(|(file, _)| !module(file).contains(&"tests".to_owned()))
        .flat_map(|(file, text)| makers(&tokens(text)).into_iter().map(|line| format!("{}:{line}", file.display())))
        .collect();
    assert_eq!(places.len(), 1, "{places:?}");
    assert!(places[0].starts_with("pop3/maildrop.rs"), "{places:?}");
}

#[test]
fn planted_violations_are_caught() {
    let cases = [
        ("pop3/line.rs", "use crate::upstream::Fault;", 1),
        ("pop3/line.rs", "use crate::{mail::Uid, net::{Wire, tls}};", 1),
        ("pop3/line.rs", "fn f() { let x = crate::gateway::Seen::Quit; }", 1),
        ("pop3/line.rs", "use super::super::net;", 1),
        ("pop3/line.rs", "use super::{super::{net, mail}, command};", 1),
        ("pop3/mod.rs", "use super::upstream;", 1),
        ("pop3/line.rs", "use crate as all;", 1),
        ("pop3/line.rs", "use crate::*;", 1),
        ("pop3/line.rs", "mod tests { use super::super::super::net::Wire; }", 1),
        ("pop3/line.rs", "macro_rules! m { () => { $crate::config::Config } }", 1),
        ("upstream/imap/mod.rs", "use crate::{mail::Uid, pop3::line::Lines};", 1),
        ("net/mod.rs", "use crate::upstream::Upstream;", 1),
        ("mail.rs", "use crate::net::Wire;", 1),
        ("gateway/mod.rs", "use crate::config::Config;", 1),
        ("admin.rs", "use crate::{config::Config, pop3::line::Lines, server};", 3),
        ("attic.rs", "use crate::mail::Uid;", 1),
        // What is allowed.
        ("pop3/line.rs", "use super::command; use crate::{mail::{Uid, Secret}, pop3::stuff}; pub(super) fn f() {}", 0),
        ("pop3/line.rs", "mod tests { use super::*; use super::super::command; }", 0),
        ("mail.rs", "fn f() { \"{\"; '{'; b'\\''; } mod tests { use super::*; }", 0),
        ("pop3/line.rs", "// use crate::net;\n/* crate::net /* */ crate::net */ const A: &str = r#\"crate::net\"#;", 0),
        ("gateway/mod.rs", "use crate::{mail, net, pop3::line, upstream::{self, Fault}};", 0),
        ("server.rs", "use crate::{config::Config, gateway, net};", 0),
        ("main.rs", "use popgate::cli;", 0),
    ];
    for (file, text, expected) in cases {
        assert_eq!(trespasses(Path::new(file), &tokens(text)).len(), expected, "{file}: {text}");
    }
    let cases = [
        ("pop3/line.rs", "async fn f() {}", 1),
        ("pop3/line.rs", "use std::{fmt, time::Duration};", 1),
        ("pop3/line.rs", "use std::time::Duration;", 1),
        ("pop3/line.rs", "fn f() { tokio::spawn(()); }", 1),
        ("pop3/line.rs", "struct ImapLine;", 1),
        ("upstream/mod.rs", "fn pop3() {}", 1),
        ("upstream/mod.rs", "use std::time::Duration; async fn f() {}", 0),
        ("pop3/line.rs", "use std::{fmt, sync::Arc}; /// No IMAP, no tokio.\nconst A: &str = \"IMAP async\";", 0),
    ];
    for (file, text, expected) in cases {
        assert_eq!(impurities(Path::new(file), &tokens(text)).len(), expected, "{file}: {text}");
    }
    let text =
        "struct Changes { a: u8 } impl Changes {} fn f() -> Changes { Changes { a: 1 } } fn g() { Changes::default() }
                #[cfg(test)] mod tests { fn f() { Changes { a: 1 } } }";
    assert_eq!(makers(&tokens(text)).len(), 2, "the literal and the default");
}

/// The rooms that a file names without a right to.
fn trespasses(file: &Path, tokens: &[Token]) -> Vec<String> {
    let module = module(file);
    let Some(room) = module.first().cloned() else { return Vec::new() };
    let Some((_, may_see)) = MAY_SEE.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: the picture has no room `{room}`", file.display())];
    };
    let named = references(module, tokens);
    let strange = named.into_iter().filter(|(seen, _)| *seen != room && !may_see.contains(&seen.as_str()));
    strange.map(|(seen, line)| format!("{}:{line}: `{room}` must not see `{seen}`", file.display())).collect()
}

/// What in a file is not for its room to know.
fn impurities(file: &Path, tokens: &[Token]) -> Vec<String> {
    let module = module(file);
    let Some(room) = module.first() else { return Vec::new() };
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let word = token.text.to_ascii_lowercase();
        let foreign = FOREIGN.iter().any(|(of, foreign)| of == room && *foreign != room && word.contains(foreign));
        let pure = room == "pop3";
        let mut names = Vec::new();
        if pure && token.text == "std" && path_goes_on(tokens, index + 1) {
            heads(tokens, index + 3, &mut Vec::new(), &mut names);
        }
        let std = names.iter().any(|(name, _)| NOT_PURE_IN_STD.contains(&name.as_str()));
        if foreign || std || pure && NOT_PURE.contains(&token.text.as_str()) {
            found.push(format!("{}:{}: `{}` is not for `{room}`", file.display(), token.line, token.text));
        }
    }
    found
}

/// The lines outside tests where a `Changes` is made.
fn makers(tokens: &[Token]) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut inside = Inside::default();
    for (index, token) in tokens.iter().enumerate() {
        inside.step(tokens, index);
        if token.text != "Changes" || inside.modules.iter().any(|(name, _)| name == "tests") {
            continue;
        }
        let before = index.checked_sub(1).map_or("", |index| &tokens[index].text);
        let after = |ahead: usize| tokens.get(index + ahead).map_or("", |token| &token.text);
        // Struct, impl, and `-> Changes {` of a function open a block; anything else with a brace behind it is a value.
        let literal = after(1) == "{" && !["struct", "impl", "for", ">"].contains(&before);
        // Comparing with the default makes none that is carried out.
        let default = path_goes_on(tokens, index + 1) && after(3) == "default" && before != "=";
        if literal || default {
            lines.push(token.line);
        }
    }
    lines
}

/// All rooms that the tokens name, by `crate::` or by as many `super::` as lead out of the room.
fn references(module: Vec<String>, tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut inside = Inside::default();
    for (index, token) in tokens.iter().enumerate() {
        inside.step(tokens, index);
        let mut at = match token.text.as_str() {
            "crate" => Vec::new(),
            "super" => {
                let inner = inside.modules.iter().map(|(name, _)| name.clone());
                let mut at: Vec<_> = module.iter().cloned().chain(inner).collect();
                at.pop();
                at
            }
            _ => continue,
        };
        if path_goes_on(tokens, index + 1) {
            heads(tokens, index + 3, &mut at, &mut found);
        } else if at.is_empty() && tokens.get(index + 1).is_some_and(|next| next.text == "as") {
            found.push(("*".to_owned(), token.line));
        }
    }
    found
}

/// Follows a path from the module `at`, in all its branches, and notes the rooms at which it arrives in the crate's root.
/// Returns the index behind the path.
fn heads(tokens: &[Token], mut index: usize, at: &mut Vec<String>, found: &mut Vec<(String, usize)>) -> usize {
    let Some(token) = tokens.get(index) else { return index };
    match token.text.as_str() {
        "{" => {
            index += 1;
            while tokens.get(index).is_some_and(|token| token.text != "}") {
                index = match tokens[index].text.as_str() {
                    "," => index + 1,
                    _ => heads(tokens, index, &mut at.clone(), found).max(index + 1),
                };
            }
            return index + 1;
        }
        "super" => {
            at.pop();
        }
        "self" => {}
        name => {
            if at.is_empty() {
                found.push((name.to_owned(), token.line));
            }
            at.push(name.to_owned());
        }
    }
    match path_goes_on(tokens, index + 1) {
        true => heads(tokens, index + 3, at, found),
        false => index + 1,
    }
}

fn path_goes_on(tokens: &[Token], index: usize) -> bool {
    tokens.get(index..index + 2).is_some_and(|two| two.iter().all(|token| token.text == ":"))
}

/// Which modules of the file one is inside of while walking over its tokens.
#[derive(Default)]
struct Inside {
    depth: usize,
    /// The name of each, and the depth of braces that it stands at.
    modules: Vec<(String, usize)>,
}

impl Inside {
    fn step(&mut self, tokens: &[Token], index: usize) {
        match tokens[index].text.as_str() {
            "{" => {
                if index > 1 && tokens[index - 2].text == "mod" {
                    self.modules.push((tokens[index - 1].text.clone(), self.depth));
                }
                self.depth += 1;
            }
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                self.modules.retain(|(_, depth)| *depth < self.depth);
            }
            _ => {}
        }
    }
}

/// `pop3`, `line` for `pop3/line.rs`; nothing for the root of the library.
fn module(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

/// All files of `src`, by their path below it.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "only {} files: is this the right directory?", found.len());
    found
}

/// A word, or one character of punctuation.
struct Token {
    text: String,
    line: usize,
}

/// Cuts source into tokens; comments and the insides of texts and characters are left out.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = comment(rest).or_else(|| literal(rest)).unwrap_or_else(|| {
            let word = rest.find(|character: char| !is_word(character)).unwrap_or(rest.len());
            let length = if word > 0 { word } else { first.len_utf8() };
            if !first.is_whitespace() {
                let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
                tokens.push(Token { text: rest[..length].to_owned(), line });
            }
            length
        });
        rest = &rest[length..];
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then_some(())?;
    let mut depth = 0;
    let mut index = 0;
    while index < text.len() {
        match &text.as_bytes()[index..] {
            [b'/', b'*', ..] => (depth, index) = (depth + 1, index + 2),
            [b'*', b'/', ..] => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return Some(index);
        }
    }
    Some(text.len())
}

/// A text or a character, with the letters before it: `b"…"`, `r#"…"#`, `'…'`. Lifetimes are none.
fn literal(text: &str) -> Option<usize> {
    let prefix = text.find(|character: char| !matches!(character, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let body = &text[prefix..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    if text[..prefix].ends_with('r') && body[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let inner = prefix + hashes + 1;
        return Some(text[inner..].find(&end).map_or(text.len(), |at| inner + at + end.len()));
    }
    let quote = body.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let mut characters = body.char_indices().skip(1).peekable();
    let (_, first) = *characters.peek()?;
    if quote == '\'' && first != '\\' && !body[1 + first.len_utf8()..].starts_with('\'') {
        return None;
    }
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            _ if character == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}
