//! Load for `tests/bench`: one scenario a run, bounded in count, against one or more endpoints on loopback.
//!
//! Blocking sockets and a thread for each client, so that the generator costs as little as it can on the machine it
//! shares with what it measures. Prints one JSON object: operations, bytes, seconds, and percentiles of
//! the time of one operation.

mod client;
mod scenarios;

use std::process::ExitCode;

use scenarios::{Outcome, Plan};

const USAGE: &str = "usage: load SCENARIO key=value...
scenarios: push pull images manifests list mounts deletes tags repositories
keys: endpoints=HOST:PORT,... clients=N count=N size=BYTES repository=NAME path=PATH accept=TYPE seed=N seconds=S";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(scenario) = arguments.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let plan = match Plan::parse(arguments) {
        Ok(plan) => plan,
        Err(reason) => {
            eprintln!("load: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match scenarios::run(&scenario, &plan) {
        Ok(Outcome {
            operations,
            bytes,
            seconds,
            p50_ms,
            p99_ms,
        }) => {
            println!(
                "{{\"operations\":{operations},\"bytes\":{bytes},\"seconds\":{seconds:.6},\
                 \"p50_ms\":{p50_ms:.3},\"p99_ms\":{p99_ms:.3}}}"
            );
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("load: {scenario}: {reason}");
            ExitCode::FAILURE
        }
    }
}
