//! The process: reads the command line and the configuration, starts the log, runs the daemon. Exit codes: 0 done, 1
//! failed while running, 2 wrong configuration or usage.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use popgate::{
    cli::{Cli, Command, Options},
    config::Config,
    server, telemetry,
};

fn main() -> ExitCode {
    let Cli { command: Command::Serve(options) } = Cli::parse();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Start(error)) => complain(&error, 2),
        Err(Failure::Run(error)) => complain(&error, 1),
    }
}

/// Why the process ends.
enum Failure {
    /// It never began to serve.
    Start(anyhow::Error),
    /// It could not go on.
    Run(anyhow::Error),
}

fn serve(options: Options) -> Result<(), Failure> {
    let (files, command_line) = options.into_parts();
    let config =
        Config::load(&files, std::env::vars_os(), &command_line).map_err(|error| Failure::Start(error.into()))?;
    telemetry::start(&config.log).map_err(|error| Failure::Start(error.into()))?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started").map_err(Failure::Run)?;
    runtime.block_on(server::run(config)).map_err(|error| match error {
        server::Error::Signals(_) => Failure::Run(error.into()),
        server::Error::Port { .. } | server::Error::Tls(_) => Failure::Start(error.into()),
    })
}

#[expect(clippy::print_stderr, reason = "without a configuration there is no log to write to")]
fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("popgate: {error:#}");
    ExitCode::from(code)
}
