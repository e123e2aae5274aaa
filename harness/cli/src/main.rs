//! The `udn-conformance` program: which promises of OVN-Kubernetes User Defined Networks a cluster keeps. Wiring only.

mod args;
mod bench;
mod commands;
mod failure;
mod help;
mod interrupt;
mod memory;
mod place;
mod reporting;
mod select;
mod sentry;
mod shards;
mod target;
mod tied;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use udn_model::verdict::ExitCode as Exit;

use args::{Cli, Command, Lab, Run};
use failure::Failure;

fn main() -> ExitCode {
    memory::keep_little();
    // The program is also every process of the lab; those have to begin before there is a second thread.
    if let Some(code) = udn_lab::internal(std::env::args_os(), memory::give_back) {
        return code;
    }
    let Some(args) = tied::tie(std::env::args_os().collect()) else { return ExitCode::FAILURE };
    let cli = Cli::parse_from(args);
    log();
    match start(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            reporting::complain(&failure.message());
            ExitCode::from(failure.exit.code())
        }
    }
}

/// For developers: `RUST_LOG=udn_cluster=debug`. Without it nothing but reports is printed.
fn log() {
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_some() {
        tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    }
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads").map_err(Failure::setup)?;
    let ended = runtime.block_on(dispatch(cli.command.unwrap_or_else(run_everything)));
    // What still blocks, such as the start of a lab that was interrupted, ends with the program.
    runtime.shutdown_background();
    ended
}

/// What the program does when nothing is asked of it.
fn run_everything() -> Command {
    Command::Run(Box::new(Run::everything()))
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::List(args) => commands::list::list(&args).map(|()| Exit::Passed),
        Command::Plan(args) => commands::list::plan(&args).await.map(|()| Exit::Passed),
        Command::Run(args) => commands::run::run(&args).await,
        Command::Report(args) => commands::report::report(&args).map(|()| Exit::Passed),
        Command::Diff(args) => commands::diff::diff(&args),
        Command::Explain(args) => commands::explain::explain(&args).map(|()| Exit::Passed),
        Command::Bench(args) => commands::bench::bench(&args).await,
        Command::Image(args) => commands::image::image(&args).await.map(|()| Exit::Passed),
        Command::Cleanup(args) => commands::cleanup::cleanup(&args).await,
        Command::Completions(args) => commands::manual::completions(&args).map(|()| Exit::Passed),
        Command::Man => commands::manual::page().map(|()| Exit::Passed),
        Command::Lab(Lab::Up(args)) => commands::lab::up(&args).await,
        Command::Lab(Lab::Down(args)) => commands::lab::down(&args),
        Command::Lab(Lab::Status(args)) => commands::lab::status(&args),
        Command::Lab(Lab::Kubeconfig(args)) => commands::lab::kubeconfig(&args),
        Command::Lab(Lab::Exec(args)) => commands::lab::exec(&args),
    }
}
