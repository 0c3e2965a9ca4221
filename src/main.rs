//! The process: reads the command line, does what it says, and says how it went.
//!
//! Exit codes: 0 done, 1 failed while running, 2 wrong configuration or usage.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
    panic,
    process::ExitCode,
};

use clap::Parser;
use popgate::{
    check::{self, Progress, Table},
    cli::{self, Cli, Command, Options},
    config::Config,
    probe::Target,
    server, telemetry,
};
use rlimit::Resource;
use tokio::runtime::Runtime;
use tracing::warn;

fn main() -> ExitCode {
    // Not its message, which may quote what was being worked on: a password, a mail.
    panic::set_hook(Box::new(|panic| {
        let _ = match panic.location() {
            Some(location) => writeln!(io::stderr(), "popgate: panic at {location}"),
            None => writeln!(io::stderr(), "popgate: panic"),
        };
    }));
    let hidden = hide_memory();
    let done = match Cli::parse().command {
        Command::Serve(options) => serve(options, hidden),
        Command::Check(what) => check(&what),
        Command::Probe { url } => probe(&url),
        Command::Completions { shell } => print(Ok(cli::completions(shell))),
        Command::Man => print(cli::manual()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(error)) => fail(2, &error),
        Err(Failure::Run(error)) => fail(1, &error),
        Err(Failure::Said) => ExitCode::from(1),
    }
}

/// Why the process ends.
enum Failure {
    /// It was told what cannot be done.
    Start(anyhow::Error),
    /// Something else.
    Run(anyhow::Error),
    /// What has been printed already.
    Said,
}

/// Keeps passwords and mail in this process: no dump of its memory is written when it crashes, and none but root looks into
/// it while it runs.
fn hide_memory() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    // Where there are none already, nobody needs to be allowed to forbid them.
    match rlimit::getrlimit(Resource::CORE)? {
        (0, 0) => Ok(()),
        _ => rlimit::setrlimit(Resource::CORE, 0, 0),
    }
}

fn serve(options: Options, hidden: io::Result<()>) -> Result<(), Failure> {
    let (files, command_line) = options.into_parts();
    let load = move || Config::load(&files, env::vars_os(), &command_line);
    let config = load().map_err(|error| Failure::Start(error.into()))?;
    telemetry::start(&config.log).map_err(|error| Failure::Run(error.into()))?;
    if let Err(error) = hidden {
        warn!(%error, "a crash may leave passwords and mail in a dump of memory");
    }
    let runtime = Runtime::new().map_err(|error| Failure::Run(error.into()))?;
    let served = runtime.block_on(server::run(config, load));
    // A name that is still being resolved would hold up the end, and nobody waits for it any more.
    runtime.shutdown_background();
    served.map_err(|error| match error {
        server::Error::Config(_) | server::Error::Port { .. } | server::Error::Tls(_) => Failure::Start(error.into()),
        server::Error::Signals(_) | server::Error::Panic => Failure::Run(error.into()),
    })
}

fn check(what: &cli::Check) -> Result<(), Failure> {
    let (files, command_line) = what.options.clone().into_parts();
    let loaded = Config::load_settings(&files, env::vars_os(), &command_line);
    let (config, settings) = loaded.map_err(|error| Failure::Start(error.into()))?;
    let who = what.credentials().map_err(|error| Failure::Start(anyhow::anyhow!("{error:#}")))?;
    let runtime = Runtime::new().map_err(|error| Failure::Run(error.into()))?;
    let checked = runtime.block_on(check::check(&config, settings, who, progress));
    runtime.shutdown_background();
    let report = checked.map_err(|error| Failure::Start(error.into()))?;
    let text = match what.json {
        true => serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(io::Error::from),
        false => Ok(Table(&report).to_string()),
    };
    print(text.map(String::into_bytes))?;
    if report.usable { Ok(()) } else { Err(Failure::Said) }
}

/// Shows a person what is being waited for. That standard error is gone changes nothing.
fn progress(step: &Progress) {
    let mut terminal = io::stderr();
    let _ = match step {
        _ if !terminal.is_terminal() => return,
        Progress::Begun(what) => write!(terminal, "{what} … "),
        Progress::Done => writeln!(terminal, "ok"),
        Progress::Failed => writeln!(terminal, "failed"),
    };
}

fn probe(target: &Target) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::Run(error.into()))?;
    let probed = runtime.block_on(target.probe());
    runtime.shutdown_background();
    let line = probed.map_err(|error| Failure::Run(anyhow::anyhow!("{target}: {error}")))?;
    // Who asks for the exit code alone may have closed standard output.
    let _ = writeln!(io::stdout(), "{line}");
    Ok(())
}

fn print(text: io::Result<Vec<u8>>) -> Result<(), Failure> {
    text.and_then(|text| io::stdout().write_all(&text)).map_err(|error| Failure::Run(error.into()))
}

/// Says why, for whoever started the process. A standard error that is gone changes nothing.
fn fail(code: u8, error: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "popgate: {error}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_neither_dumped_nor_looked_into() {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
        for _ in 0..2 {
            hide_memory().unwrap();
            assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
            assert_eq!(rlimit::getrlimit(Resource::CORE).unwrap(), (0, 0));
        }
    }
}
