//! The report for people: columns of plain text.

use std::fmt::{self, Display, Write};

use serde_json::Value as Json;

use super::report::{Certificate, Maildrop, Message, Paths, Report, Tls, Trouble, Upstream};

/// A report in columns.
#[derive(Debug)]
pub struct Table<'a>(pub &'a Report);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { usable, configuration, dangerous, warnings, upstreams } = self.0;
        writeln!(f, "configuration")?;
        let rows = configuration.iter().map(|entry| {
            let value = if entry.value == Json::Null { "(not set)".to_owned() } else { entry.value.to_string() };
            [entry.key.clone(), value, entry.place.clone().unwrap_or_else(|| entry.source.to_owned())]
        });
        columns(f, &rows.collect::<Vec<_>>())?;
        let dangerous = dangerous.iter().map(|name| format!("a dangerous option is in force: {name}"));
        for warning in dangerous.chain(warnings.iter().cloned()) {
            row(f, "warning", warning)?;
        }
        for it in upstreams {
            upstream(f, it)?;
        }
        let result = match upstreams.iter().all(|it| it.maildrop.is_some()) {
            _ if !usable => "clients cannot work",
            true => "clients can work",
            false => "clients can work, as far as can be seen without logging in everywhere (--user)",
        };
        writeln!(f, "\nresult: {result}")
    }
}

fn upstream(f: &mut fmt::Formatter<'_>, it: &Upstream) -> fmt::Result {
    let Upstream { url, domains, addresses, tls, capabilities, paths, maildrop, warnings, fault, .. } = it;
    write!(f, "\nupstream {url}")?;
    writeln!(f, "{}", if domains.is_empty() { String::new() } else { format!(" for {}", domains.join(", ")) })?;
    row(f, "address", joined(addresses))?;
    match tls {
        Some(tls) => handshake(f, tls)?,
        None if capabilities.before_login.is_some() => row(f, "TLS", "none")?,
        None => {}
    }
    for (name, capabilities) in [("offers", &capabilities.before_login), ("offers users", &capabilities.after_login)] {
        if let Some(capabilities) = capabilities {
            row(f, name, capabilities.join(" "))?;
        }
    }
    if let Some(Paths { login, listing, deletion, unique_ids }) = paths {
        row(f, "log-in", login)?;
        row(f, "listing", listing)?;
        row(f, "deletion", deletion)?;
        row(f, "unique ids", unique_ids)?;
    }
    if let Some(it) = maildrop {
        self::maildrop(f, it)?;
    }
    for warning in warnings {
        row(f, "warning", warning)?;
    }
    match fault {
        Some(Trouble { cause, advice, .. }) => {
            row(f, "failed", cause)?;
            row(f, "", advice)
        }
        None => Ok(()),
    }
}

fn handshake(f: &mut fmt::Formatter<'_>, tls: &Tls) -> fmt::Result {
    match (tls.version, &tls.cipher) {
        (Some(version), Some(cipher)) => row(f, "TLS", format_args!("{version}, {cipher}"))?,
        _ => row(f, "TLS", "the handshake failed; this certificate was shown")?,
    }
    let Some(Certificate { subject, issuer, names, expires, days_left }) = &tls.certificate else { return Ok(()) };
    row(f, "certificate", format_args!("{subject}, issued by {issuer}"))?;
    row(f, "", format_args!("for {}", joined(names)))?;
    match days_left {
        0.. => row(f, "", format_args!("expires in {days_left} days, {expires}")),
        _ => row(f, "", format_args!("expired {} days ago, {expires}", -days_left)),
    }
}

fn maildrop(f: &mut fmt::Formatter<'_>, it: &Maildrop) -> fmt::Result {
    let Maildrop { user, mailbox, messages, octets, uidvalidity, first, last, dele, hidden, .. } = it;
    writeln!(f, "\n  what a POP3 client of {} sees in {}", printable(user), printable(mailbox))?;
    row(f, "messages", format_args!("{messages}, {octets} octets"))?;
    if *hidden > 0 {
        row(f, "hidden", format_args!("{hidden} more, because of their flags"))?;
    }
    match uidvalidity {
        Some(validity) => row(f, "UIDVALIDITY", validity)?,
        None => row(f, "UIDVALIDITY", "none that lasts")?,
    }
    for (index, Message { number, octets, unique_id }) in first.iter().chain(last).enumerate() {
        if *number > index + 1 && index == first.len() {
            row(f, "", "…")?;
        }
        let unique_id = unique_id.as_deref().unwrap_or("no unique id");
        row(f, &format!("message {number}"), format_args!("{unique_id}, {octets} octets"))?;
    }
    row(f, "DELE", dele)
}

/// A name and what is to be said about it, broken into lines.
fn row(f: &mut fmt::Formatter<'_>, name: &str, text: impl Display) -> fmt::Result {
    let text = printable(&text.to_string());
    let mut line = format!("  {name:<NAME$}");
    for word in text.split(' ') {
        if line.chars().count() + word.chars().count() >= WIDTH && line.len() > NAME + 3 {
            writeln!(f, "{}", line.trim_end())?;
            line = format!("  {:<NAME$}", "");
        }
        write!(line, " {word}")?;
    }
    writeln!(f, "{}", line.trim_end())
}

/// Rows whose cells stand below one another.
fn columns(f: &mut fmt::Formatter<'_>, rows: &[[String; 3]]) -> fmt::Result {
    let width =
        |column: usize| rows.iter().map(|row| printable(&row[column]).chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1).min(COLUMN));
    for [key, value, source] in rows {
        writeln!(f, "  {:<first$}  {:<second$}  {}", printable(key), printable(value), printable(source))?;
    }
    Ok(())
}

/// What a server says may hold anything, and a terminal obeys some of it.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

fn joined(items: &[impl Display]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// How wide the names are.
const NAME: usize = 14;

/// Where lines are broken.
const WIDTH: usize = 110;

/// A value longer than this stands out of its column rather than moving all others.
const COLUMN: usize = 40;
