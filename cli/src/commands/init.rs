//! `clusterctl init`.

use clap::Args;
use proto::admin::{InitMember, InitRequest};

use crate::client::{self, CommandError};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A first member and its gRPC address; repeat for each. Each must run with cluster.wait_for_init.
    #[arg(long = "member", value_name = "ID=HOST:PORT", required = true, value_parser = client::parse_member)]
    members: Vec<(u64, String)>,
}

/// Asks the first of the new members to start the cluster.
pub(crate) async fn run(endpoints: &[String], arguments: Arguments) -> Result<(), CommandError> {
    let mut client = client::connect(endpoints).await?;
    let members = arguments.members.into_iter();
    let members = members
        .map(|(id, grpc_address)| InitMember { id, grpc_address })
        .collect();
    client
        .init(client::request(InitRequest { members }))
        .await?;
    println!("the cluster is initialised");
    Ok(())
}
