//! `clusterctl manifest`.

use clap::Subcommand;
use proto::admin::{DeletedManifest, DeletedManifestsRequest, RestoreManifestRequest};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// What to do with deleted manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show deleted manifests that can be restored, and until when.
    ListDeleted {
        /// Only of this repository.
        repository: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Bring a deleted manifest back, with the tags it had that do not exist now.
    Restore {
        /// The repository.
        repository: String,
        /// Its digest.
        digest: String,
    },
}

/// Manifests asked for at once.
const PAGE: u32 = 1000;

/// Runs a manifest command.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    command: Command,
) -> Result<(), CommandError> {
    match command {
        Command::ListDeleted { repository, limit } => {
            list_deleted(endpoints, format, repository.unwrap_or_default(), limit).await
        }
        Command::Restore { repository, digest } => {
            let mut client = client::gc(endpoints).await?;
            let request = client::request(RestoreManifestRequest {
                repository: repository.clone(),
                digest: digest.clone(),
            });
            let tags = client.restore_manifest(request).await?.into_inner().tags;
            match format {
                Format::Json => println!("{:#}", json!({ "tags": tags })),
                Format::Table if tags.is_empty() => println!("{repository}@{digest} is back"),
                Format::Table => println!(
                    "{repository}@{digest} is back, with the tags {}",
                    tags.join(", ")
                ),
            }
            Ok(())
        }
    }
}

async fn list_deleted(
    endpoints: &[String],
    format: Format,
    repository: String,
    limit: usize,
) -> Result<(), CommandError> {
    let mut client = client::gc(endpoints).await?;
    let mut request = DeletedManifestsRequest {
        repository,
        after: Default::default(),
        limit: PAGE,
    };
    let mut manifests: Vec<DeletedManifest> = Vec::new();
    let mut now_ms = 0;
    while manifests.len() < limit {
        let asked = client.deleted_manifests(client::request(request.clone()));
        let page = asked.await?.into_inner();
        now_ms = page.now_ms;
        manifests.extend(page.manifests);
        if page.next.is_empty() {
            break;
        }
        request.after = page.next;
    }
    manifests.truncate(limit);
    match format {
        Format::Json => println!("{:#}", Value::from_iter(manifests.iter().map(as_json))),
        Format::Table => {
            let mut table = output::table(&[
                "REPOSITORY",
                "DIGEST",
                "SIZE",
                "TAGS",
                "DELETED",
                "RESTORABLE FOR",
            ]);
            for manifest in &manifests {
                table.add_row([
                    manifest.repository.clone(),
                    manifest.digest.clone(),
                    output::size(manifest.size_bytes),
                    manifest.tags.join(" "),
                    format!(
                        "{} ago",
                        output::duration(now_ms.saturating_sub(manifest.deleted_at_ms))
                    ),
                    output::duration(manifest.expires_at_ms.saturating_sub(now_ms)),
                ]);
            }
            println!("{table}");
        }
    }
    Ok(())
}

fn as_json(manifest: &DeletedManifest) -> Value {
    json!({
        "repository": manifest.repository, "digest": manifest.digest,
        "media_type": manifest.media_type, "size_bytes": manifest.size_bytes,
        "tags": manifest.tags, "deleted_at_ms": manifest.deleted_at_ms,
        "expires_at_ms": manifest.expires_at_ms,
    })
}
