//! `clusterctl member`.

use std::time::Duration;

use clap::Subcommand;
use proto::admin::AddMemberRequest;

use crate::client::{self, CommandError};

/// A new voter may have to copy the whole state first.
const ADD_TIME: Duration = Duration::from_secs(600);

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a voter. The new node must run with cluster.wait_for_init and an empty data directory.
    Add {
        /// The new node and its gRPC address.
        #[arg(value_name = "ID=HOST:PORT", value_parser = client::parse_member)]
        member: (u64, String),
    },
}

/// Runs a member command.
pub(crate) async fn run(endpoints: &[String], command: Command) -> Result<(), CommandError> {
    let mut client = client::connect(endpoints).await?;
    match command {
        Command::Add {
            member: (id, grpc_address),
        } => {
            let mut request = tonic::Request::new(AddMemberRequest { id, grpc_address });
            request.set_timeout(ADD_TIME);
            client.add_member(request).await?;
            println!("node {id} is a voter");
        }
    }
    Ok(())
}
