//! The command line. Logs go to standard error, results to standard output.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

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
        #[allow(rustdoc::broken_intra_doc_links, reason = "clap prints this as it stands")]
        url: Target,
    },

    /// Print what makes a shell complete popgate's command line
    ///
    /// For bash, say: popgate completions bash > /etc/bash_completion.d/popgate
    Completions {
        /// For which shell
        shell: Shell,
    },

    /// Print this manual as a page for man(1)
    ///
    /// To read it: popgate man | man -l -
    Man,
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

    /// The IMAP server; if there are routes, that of users whom none of them is for
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

/// The script by which a shell completes the command line.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "popgate", &mut script);
    script
}

/// The manual page, in roff: one page with a section for each command, as `git(1)` and its like have many.
pub fn manual() -> io::Result<Vec<u8>> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let mut page = Vec::new();
    let man = Man::new(whole.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    for command in whole.get_subcommands() {
        let mut text = Vec::new();
        let man = Man::new(command.clone());
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        // What a page of its own would have as sections stands below its command here.
        let text = String::from_utf8_lossy(&text).replace(".SH SYNOPSIS\n", "").replace(".SH DESCRIPTION\n", ".PP\n");
        let text = text.replace(".SH OPTIONS\n", "");
        write!(page, ".SS \"popgate {}\"\n{}", command.get_name(), text.trim_start())?;
    }
    page.extend_from_slice(EPILOGUE.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

const EPILOGUE: &str = "\
.SH CONFIGURATION
Values are taken from, the later over the earlier: built-in defaults, the files given by \\-\\-config in their order, the
variables of the environment named below, the command line. The manual of all keys is the file config/popgate.toml that
comes with popgate.
.SH ENVIRONMENT
.TP
POPGATE_\\fISECTION\\fR__\\fIKEY\\fR
Sets a key of the configuration: POPGATE_UPSTREAM__URL=imaps://imap.example.com sets upstream.url. Two underscores stand
between section and key; other variables are left alone.
.SH EXIT STATUS
0 done, 1 failed while running, 2 wrong configuration or usage.
";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (TLS by aws-lc-rs)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_completed_and_in_the_manual() {
        let manual = String::from_utf8(manual().unwrap()).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let about = command.get_about().unwrap().to_string().replace('-', "\\-").replace('\'', "\\*(Aq");
            assert!(manual.contains(&format!("\n.SS \"popgate {name}\"\n")) && manual.contains(&about), "{name}");
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
                let script = String::from_utf8(completions(shell)).unwrap();
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
        assert_eq!(manual.matches("\n.SH SYNOPSIS").count(), 1, "one page, not one a command");
    }
}
