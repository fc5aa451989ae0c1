//! `clusterctl tag`.

use clap::Subcommand;
use proto::admin::{RestoreTagRequest, TagEvent, TagHistoryRequest};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// What to do with a tag.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show where a tag pointed, newest first.
    History {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// At most this many changes.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Bring a deleted tag back, with its manifest if that was deleted too.
    Restore {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// Point it where it pointed at this revision (see `history`), whether it exists now or not.
        #[arg(long)]
        revision: Option<u64>,
    },
}

/// Runs a tag command.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    command: Command,
) -> Result<(), CommandError> {
    let mut client = client::gc(endpoints).await?;
    match command {
        Command::History {
            repository,
            tag,
            limit,
        } => {
            let request = client::request(TagHistoryRequest {
                repository,
                tag,
                limit,
            });
            let events = client.tag_history(request).await?.into_inner().events;
            print_history(&events, format);
        }
        Command::Restore {
            repository,
            tag,
            revision,
        } => {
            let request = client::request(RestoreTagRequest {
                repository: repository.clone(),
                tag: tag.clone(),
                revision,
            });
            let restored = client.restore_tag(request).await?.into_inner();
            match format {
                Format::Json => println!(
                    "{:#}",
                    json!({
                        "digest": restored.digest,
                        "is_manifest_restored": restored.is_manifest_restored,
                    })
                ),
                Format::Table => {
                    let with = if restored.is_manifest_restored {
                        ", which is restored too"
                    } else {
                        ""
                    };
                    println!("{repository}:{tag} points to {}{with}", restored.digest);
                }
            }
        }
    }
    Ok(())
}

fn print_history(events: &[TagEvent], format: Format) {
    match format {
        Format::Json => {
            let events = events.iter().map(|event| {
                json!({
                    "revision": event.revision,
                    "digest": Some(&event.digest).filter(|digest| !digest.is_empty()),
                    "proposed_at_unix_ms": event.proposed_at_unix_ms,
                    "subject": event.subject,
                })
            });
            println!("{:#}", Value::from_iter(events));
        }
        Format::Table => {
            let mut table = output::table(&["REVISION", "WHEN (UTC)", "DIGEST", "WHO"]);
            for event in events {
                let digest = match event.digest.as_str() {
                    "" => "deleted",
                    digest => digest,
                };
                table.add_row([
                    &event.revision.to_string(),
                    &output::moment(event.proposed_at_unix_ms),
                    digest,
                    &event.subject,
                ]);
            }
            println!("{table}");
        }
    }
}
