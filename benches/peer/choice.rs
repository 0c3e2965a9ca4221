//! What is asked for on the command line.

use std::path::PathBuf;

use clap::Parser;

use crate::rows::Row;

/// Measures popgate against Dovecot's POP3 before another IMAP server (the peer), against Dovecot's own POP3 with no
/// translation (direct) and against IMAP itself (raw).
#[derive(Parser)]
pub(crate) struct Choice {
    /// The short form, of a few minutes. This is the default.
    #[arg(long, conflicts_with_all = ["full", "smoke"])]
    short: bool,
    /// The full form: more repetitions, and the rows that take long.
    #[arg(long, conflicts_with = "smoke")]
    full: bool,
    /// Small mailboxes, once: whether everything works, not how fast it is.
    #[arg(long)]
    smoke: bool,
    /// Only the rows whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Only these of raw, direct, peer, popgate and "popgate cold".
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// How often each row is run, instead of what the form says.
    #[arg(long)]
    repeat: Option<u32>,
    /// Writes every figure that was measured to this file as well.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// cargo bench says this.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many messages of how many octets a mailbox has.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) messages: usize,
    pub(crate) octets: usize,
}

impl Choice {
    pub(crate) fn form(&self) -> &'static str {
        match (self.full, self.smoke) {
            (true, _) => "full",
            (_, true) => "smoke",
            _ => "short",
        }
    }

    pub(crate) const fn smoke(&self) -> bool {
        self.smoke
    }

    /// Whether the row is to be run.
    pub(crate) fn wants(&self, row: &Row) -> bool {
        let named = self.rows.iter().any(|wanted| row.name.contains(wanted));
        named || self.rows.is_empty() && (self.full || !row.long)
    }

    /// Whether the target is to be measured.
    pub(crate) fn measures(&self, target: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|wanted| wanted == target)
    }

    /// How often each row is run.
    pub(crate) fn repetitions(&self) -> u32 {
        self.repeat.unwrap_or_else(|| match self.form() {
            "full" => 5,
            "smoke" => 1,
            _ => 3,
        })
    }

    /// A mailbox of this size, or one that is a hundredth of it where only a smoke test is wanted.
    pub(crate) const fn size(&self, messages: usize, octets: usize) -> Size {
        if !self.smoke {
            return Size { messages, octets };
        }
        let messages = if messages > 10 { messages.div_ceil(100) + 8 } else { messages };
        Size { messages, octets: if octets > 1_000_000 { octets / 100 } else { octets } }
    }
}
