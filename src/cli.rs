//! The command line. Logs go to standard error, results to standard output.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{config::CommandLine, probe::Target};

/// Lets software that speaks only POP3 use mailboxes that are served only by IMAP.
#[derive(Clone, Debug, Parser)]
#[command(name = "popgate", version = VERSION, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve POP3 clients until told to stop
    Serve(Options),

    /// Ask a port whether it is alive: exit code 0 if it is, 1 if not
    ///
    /// For health checks, in images without a shell too. It takes five seconds at most. A POP3 server must greet and
    /// answer QUIT with +OK; over HTTP, GET must be answered with a status from 200 to 399. With pop3s:// the certificate
    /// is not checked, neither its name nor its age, so that localhost can be asked: this tells whether the port is alive,
    /// not whether its certificate is good.
    Probe {
        /// pop3://HOST[:110], pop3s://HOST[:995] or http://HOST[:80][/PATH]
        url: Target,
    },
}

/// Where the configuration is. Each later one of these outranks the earlier.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Configuration file in TOML; may be given several times, the later wins
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// Set any other key; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,

    /// Listen here instead of where the files say; may be given several times
    ///
    /// pop3://HOST:PORT (STLS is offered where a certificate is configured) or pop3s://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub listen: Vec<String>,

    /// The IMAP server
    ///
    /// imaps://HOST[:993], imap+starttls://HOST[:143] or, on this machine, imap://HOST[:143]
    #[allow(rustdoc::broken_intra_doc_links, reason = "clap prints this as it stands")]
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,

    /// PEM file with certificates to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<String>,
}

impl Options {
    /// The files, and what outranks them.
    pub fn into_parts(self) -> (Vec<PathBuf>, CommandLine) {
        let Self { config, set, listen, upstream, upstream_ca } = self;
        (config, CommandLine { listen, upstream, upstream_ca, set })
    }
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (TLS by aws-lc-rs)");

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
