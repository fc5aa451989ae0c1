//! `clusterctl`: the operator's tool. Speaks gRPC to the nodes and keeps no state of its own.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong, 3 no node could be reached.

mod client;
mod commands;
mod output;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use commands::{check, gc, help, init, leader, manifest, member, repair, scrub, status, tag};
use output::Format;

/// Looks after an Argosy cluster.
#[derive(Debug, Parser)]
#[command(name = "clusterctl", version, about)]
struct Arguments {
    /// gRPC addresses of nodes, host:port; the first that answers is used.
    #[arg(
        long,
        global = true,
        env = "CLUSTERCTL_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:5100"
    )]
    endpoints: Vec<String>,

    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster whose nodes wait for it.
    Init(init::Arguments),
    /// Show nodes, roles, leader, log indexes and lag, blobs, missing copies, disk.
    Status(status::Arguments),
    /// Verify the replicated state on every node and compare it. Reads all of it.
    Check,
    /// Change who belongs to the cluster.
    #[command(subcommand)]
    Member(member::Command),
    /// Change who leads.
    #[command(subcommand)]
    Leader(leader::Command),
    /// Look at garbage collection, run it, stop it, ask why something is kept.
    #[command(subcommand)]
    Gc(gc::Command),
    /// Show where a tag pointed, and point it there again.
    #[command(subcommand)]
    Tag(tag::Command),
    /// Show deleted manifests, and bring them back.
    #[command(subcommand)]
    Manifest(manifest::Command),
    /// Look at the repair of missing copies.
    #[command(subcommand)]
    Repair(repair::Command),
    /// Read stored bytes again.
    #[command(subcommand)]
    Scrub(scrub::Command),
    /// Print what a shell loads to complete commands: source <(clusterctl completions bash).
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write a page for each command.
    Man(help::ManArguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let endpoints = &arguments.endpoints;
    let result = match arguments.command {
        Command::Init(init) => init::run(endpoints, init).await,
        Command::Status(status) => status::run(endpoints, arguments.output, status).await,
        Command::Check => check::run(endpoints, arguments.output).await,
        Command::Member(command) => member::run(endpoints, arguments.output, command).await,
        Command::Leader(command) => leader::run(endpoints, arguments.output, command).await,
        Command::Gc(command) => gc::run(endpoints, arguments.output, command).await,
        Command::Tag(command) => tag::run(endpoints, arguments.output, command).await,
        Command::Manifest(command) => manifest::run(endpoints, arguments.output, command).await,
        Command::Repair(command) => repair::run(endpoints, command, arguments.output).await,
        Command::Scrub(command) => scrub::run(endpoints, command, arguments.output).await,
        Command::Completions { shell } => {
            help::completions(Arguments::command(), shell);
            Ok(())
        }
        Command::Man(man) => help::man(Arguments::command(), man),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterctl: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
