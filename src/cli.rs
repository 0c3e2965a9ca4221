//! The command line. Logs go to standard error, results to standard output.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    config::CommandLine,
    mail::{Credentials, Proof, Secret},
    probe::Target,
};

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

    /// Say what is configured, and what the IMAP server is like
    ///
    /// Prints every key of the configuration with its value and where it comes from. Then connects to each upstream and
    /// prints TLS, certificate, capabilities, and how popgate will log in, list and delete there. With --user it logs in
    /// as well and prints what a POP3 client would see. Nothing is changed upstream: the mailbox is opened by EXAMINE.
    ///
    /// Exit code 0 if clients can work, 1 if not, 2 if the configuration is wrong.
    #[command(after_long_help = DOCUMENT)]
    Check(Check),

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

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The same as for serve.
    #[command(flatten)]
    pub options: Options,

    /// Log in as this user; the password is asked for on the terminal
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// The file that holds the user's password, on one line
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,

    /// Print one JSON document, for programs
    #[arg(long)]
    pub json: bool,
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

impl Check {
    /// Who is to log in, if anybody. The password is read from the file, or asked for where a person can be asked.
    pub fn credentials(&self) -> anyhow::Result<Option<Credentials>> {
        let Some(user) = self.user.clone() else { return Ok(None) };
        ensure!(!user.is_empty() && !user.contains(char::is_control), "--user: found {user:?}; allowed: a user name");
        let password = match &self.password_file {
            Some(file) => {
                let mut octets = fs::read(file).with_context(|| file.display().to_string())?;
                if octets.pop_if(|last| *last == b'\n').is_some() {
                    octets.pop_if(|last| *last == b'\r');
                }
                octets
            }
            None => rpassword::prompt_password(format!("Password of {user}: "))
                .context("the password cannot be asked for without a terminal; needed: --password-file")?
                .into_bytes(),
        };
        let password = Secret::new(password);
        let sendable = |octet: &u8| !matches!(octet, 0 | b'\r' | b'\n');
        ensure!(!password.expose().is_empty(), "the password is empty");
        ensure!(password.expose().iter().all(sendable), "the password has more than one line");
        Ok(Some(Credentials::new(user, Proof::Password(password))))
    }
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

/// What stands in the document of `check --json`.
const DOCUMENT: &str = "\
The JSON document; null means that something is not known or not there:
  usable           whether clients could work with every upstream
  configuration[]  key, value, source, place; source is default, file,
                   environment or command line
  dangerous[]      names of the dangerous options that are in force
  warnings[]       sentences about the configuration
  upstreams[]      url, domains[], usable, addresses[], warnings[] and
    tls            accepted, version, cipher, and certificate: subject,
                   issuer, names[], expires, days_left
    capabilities   before_login[], after_login[]
    paths          login, listing, deletion, unique_ids, in words
    maildrop       with --user: user, mailbox, messages, octets, uidvalidity,
                   dele_accepted, dele, unlisted[] (UIDs), hidden, and first[]
                   and last[], three messages each: number, octets, unique_id
    fault          verdict (denied, busy, passing, lasting or changed),
                   cause, advice";

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
