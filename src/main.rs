//! The process: reads the command line, does what it says, and says how it went.
//!
//! Exit codes: 0 done, 1 failed while running, 2 wrong configuration or usage.

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use popgate::{
    cli::{self, Cli, Command, Options},
    config::Config,
    probe::Target,
    server, telemetry,
};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(options) => serve(options),
        Command::Probe { url } => probe(&url),
        Command::Completions { shell } => print(Ok(cli::completions(shell))),
        Command::Man => print(cli::manual()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(error)) => fail(2, &error),
        Err(Failure::Run(error)) => fail(1, &error),
    }
}

/// Why the process ends.
enum Failure {
    /// It was told what cannot be done.
    Start(anyhow::Error),
    /// Something else.
    Run(anyhow::Error),
}

fn serve(options: Options) -> Result<(), Failure> {
    let (files, command_line) = options.into_parts();
    let config = Config::load(&files, env::vars_os(), &command_line).map_err(|error| Failure::Start(error.into()))?;
    telemetry::start(&config.log).map_err(|error| Failure::Run(error.into()))?;
    let runtime = Runtime::new().map_err(|error| Failure::Run(error.into()))?;
    let served = runtime.block_on(server::run(config));
    // A name that is still being resolved would hold up the end, and nobody waits for it any more.
    runtime.shutdown_background();
    served.map_err(|error| match error {
        server::Error::Port { .. } | server::Error::Tls(_) => Failure::Start(error.into()),
        server::Error::Signals(_) => Failure::Run(error.into()),
    })
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
