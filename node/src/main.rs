//! `argosy`: one node of the registry.
//!
//! Exit codes: 0 stopped in order, 1 a node failed or could not start, 2 the configuration or the command line is
//! wrong. Of `fsck`: 0 nothing is wrong, 1 something is, 2 not everything could be checked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use metadata::ids::NodeId;
use node::assemble::{Node, StartupError};
use node::config::{self, ConfigError, Loaded};
use node::fsck::FsckOptions;
use tokio::signal::unix::{SignalKind, signal};

/// A replicated registry for container images and every other OCI artifact.
#[derive(Debug, Parser)]
#[command(name = "argosy", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node. Without configuration: a registry of one node on port 5000.
    Serve(Settings),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a copy of a data directory the one that counts, after it was moved to another disk or restored.
    ///
    /// Only a copy that was made while the node was stopped, and only if the original is never started again and was
    /// not started since: a node that runs twice, or that forgets what it acknowledged, loses data.
    AcceptCopy(AcceptCopy),
    /// Go on with this node alone after a majority of the voters was lost for good. The node must not run.
    ///
    /// What the others acknowledged without it is lost. It becomes another cluster, which nodes of the old one cannot
    /// join; choose the node that has the most, and never start the others again.
    Recover(Recover),
    /// Check data directories of nodes that do not run, each for itself and all together. Changes nothing.
    ///
    /// Exit code 0: nothing is wrong; 1: something is; 2: not everything could be checked.
    Fsck(Fsck),
}

/// Which copy.
#[derive(Debug, Args)]
struct AcceptCopy {
    /// The data directory.
    #[arg(long = "data")]
    directory: PathBuf,
}

/// What goes on, and without whom.
#[derive(Debug, Args)]
struct Recover {
    #[command(flatten)]
    settings: Settings,
    /// The other voters, which are lost, all of them.
    #[arg(long, required = true, value_delimiter = ',', value_name = "NODES")]
    without: Vec<u64>,
}

/// What to check.
#[derive(Debug, Args)]
struct Fsck {
    /// Data directories; give all of a cluster to compare them with each other.
    #[arg(long = "data", required = true, num_args = 1.., value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Compare the lengths of blobs and do not read them.
    #[arg(long)]
    quick: bool,
    /// The nodes ran undisturbed for a while: what they should have removed by then is wrong.
    #[arg(long)]
    settled: bool,
    /// How to print what is found.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// One line each, in words.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is valid.
    Check(Settings),
    /// Print every value and where it comes from.
    Show(Settings),
}

/// Where settings come from. Flags beat ARGOSY__SECTION__KEY variables, which beat the file.
#[derive(Debug, Args)]
struct Settings {
    /// A TOML file.
    #[arg(long, env = "ARGOSY_CONFIG")]
    config: Option<PathBuf>,
    /// node.id
    #[arg(long)]
    node_id: Option<String>,
    /// node.data_dir
    #[arg(long)]
    data: Option<String>,
    /// http.listen
    #[arg(long)]
    http: Option<String>,
    /// grpc.listen
    #[arg(long)]
    grpc: Option<String>,
    /// telemetry.format: human or json
    #[arg(long)]
    log_format: Option<String>,
    /// telemetry.level
    #[arg(long)]
    log_level: Option<String>,
}

impl Settings {
    fn load(self) -> Result<Loaded, ConfigError> {
        let flags: Vec<(&str, &str, String)> = [
            ("node-id", "node.id", self.node_id),
            ("data", "node.data_dir", self.data),
            ("http", "http.listen", self.http),
            ("grpc", "grpc.listen", self.grpc),
            ("log-format", "telemetry.format", self.log_format),
            ("log-level", "telemetry.level", self.log_level),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| value.map(|value| (flag, key, value)))
        .collect();
        config::load(self.config.as_deref(), std::env::vars(), &flags)
    }
}

fn main() -> ExitCode {
    let _armed = storage::failpoints::arm();
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Serve(settings) => match settings.load() {
            Ok(loaded) => serve(&loaded),
            Err(error) => refuse(&error),
        },
        Command::AcceptCopy(AcceptCopy { directory }) => accept_copy(&directory),
        Command::Recover(Recover { settings, without }) => match settings.load() {
            Ok(loaded) => recover(&loaded, without),
            Err(error) => refuse(&error),
        },
        Command::Fsck(Fsck {
            directories,
            quick,
            settled,
            output,
        }) => {
            let options = FsckOptions {
                directories,
                quick,
                settled,
            };
            node::fsck::run(&options).print(output == Output::Json)
        }
        Command::Config(ConfigCommand::Check(settings)) => match settings.load() {
            Ok(_) => {
                println!("the configuration is valid");
                ExitCode::SUCCESS
            }
            Err(error) => refuse(&error),
        },
        Command::Config(ConfigCommand::Show(settings)) => match settings.load() {
            Ok(loaded) => {
                print!("{}", loaded.describe());
                ExitCode::SUCCESS
            }
            Err(error) => refuse(&error),
        },
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("argosy: {error}");
    ExitCode::from(2)
}

fn accept_copy(directory: &Path) -> ExitCode {
    match storage::layout::accept_copy(directory) {
        Ok(node_id) => {
            println!(
                "{} is the data directory of node {node_id} now; never start the original again",
                directory.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("argosy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn recover(loaded: &Loaded, without: Vec<u64>) -> ExitCode {
    if let Err(error) = node::telemetry::start(&loaded.config.raw.telemetry) {
        return refuse(&error);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let lost = without.into_iter().map(NodeId).collect();
    match runtime.block_on(node::recover::run(&loaded.config, &lost)) {
        Ok(recovered) => {
            let node = loaded.config.raw.node.id;
            let (applied, cluster_id) = (recovered.applied, recovered.cluster_id);
            println!(
                "node {node} is cluster {cluster_id} now, with everything through log entry {applied}"
            );
            let elsewhere = recovered.elsewhere;
            println!(
                "{} blobs with {} bytes have no copy here; once the node runs, this gives them up and lists them:",
                elsewhere.blobs, elsewhere.bytes
            );
            for lost in recovered.lost {
                println!("    clusterctl member remove {lost} --force");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("argosy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, ExitCode> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            eprintln!("argosy: starting the runtime: {error}");
            ExitCode::FAILURE
        })
}

fn serve(loaded: &Loaded) -> ExitCode {
    if let Err(error) = node::telemetry::start(&loaded.config.raw.telemetry) {
        return refuse(&error);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(run(loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "the node cannot go on");
            eprintln!("argosy: {error}");
            if error.is_about_data() {
                let data = loaded.config.raw.node.data_dir.display();
                eprintln!(
                    "argosy: `argosy fsck --data {data}` says what else is wrong; deploy/README.md, Damaged files, what \
                     to do about it"
                );
                print_repair(&error, loaded);
            }
            ExitCode::FAILURE
        }
    }
}

/// The commands, as they are to be typed.
fn print_repair(error: &StartupError, loaded: &Loaded) {
    let command_line: Vec<String> = std::env::args().collect();
    let commands = node::remedy::commands(error, &loaded.config, &command_line);
    if !commands.is_empty() {
        eprintln!("argosy: to repair it:");
    }
    for command in commands {
        eprintln!("    {command}");
    }
}

async fn run(loaded: &Loaded) -> Result<(), StartupError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartupError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartupError::Signals)?;
    let node = Node::start(&loaded.config).await?;
    let ended = tokio::select! {
        ended = node.run() => Some(ended),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match ended {
        None => {
            tracing::info!("stopping");
            // A second signal means: now. What was acknowledged is durable at any moment.
            tokio::select! {
                () = node.stop() => {}
                _ = terminate.recv() => tracing::warn!("stopped at once"),
                _ = interrupt.recv() => tracing::warn!("stopped at once"),
            }
            Ok(())
        }
        Some(Ok(never)) => match never {},
        Some(Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fsck_takes_several_directories_in_either_way() {
        for line in [
            "argosy fsck --data a b --quick",
            "argosy fsck --data a --data b --quick",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
            let Command::Fsck(fsck) = arguments.command else {
                panic!("{line}");
            };
            assert_eq!(fsck.directories, [PathBuf::from("a"), PathBuf::from("b")]);
            assert!(fsck.quick);
        }
        assert!(Arguments::try_parse_from(["argosy", "fsck", "--data"]).is_err());
    }
}
