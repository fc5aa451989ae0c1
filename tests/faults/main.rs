//! Faults on real nodes: clients that record what was acknowledged, a nemesis that breaks things, and checks of what
//! is left. Started by `tests/chaos`, `tests/soak` and `tests/failpoints`.

mod chaos;
mod checks;
mod client;
mod cluster;
mod cycles;
mod failpoints;
mod history;
mod http;
mod nemesis;
mod proxy;
mod report;
mod rng;
mod run;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "faults", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All kinds of faults under a mixed load.
    Chaos(chaos::Arguments),
    /// Every failpoint, with an error, a full disk, a panic and a delay.
    Failpoints(failpoints::Arguments),
    /// Pushes, deletes and kills while garbage is collected all the time.
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Failpoints(arguments) => failpoints::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
