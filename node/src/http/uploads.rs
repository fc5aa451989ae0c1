//! Uploads: start, append, ask, finish, cancel, mount (spec end-4 to end-6, end-11, end-13, end-14).

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, LOCATION, RANGE};
use http::{HeaderValue, StatusCode, response};
use metadata::ids::LogIndex;
use oci::{Digest, Mount, RepositoryName};
use registry::{BlobInfo, Seen, UploadState};

use super::Front;
use super::blobs::finish;
use super::error::HttpError;
use super::headers::{
    DOCKER_CONTENT_DIGEST, DOCKER_UPLOAD_UUID, OCI_CHUNK_MIN_LENGTH, blob_path, upload_path,
    upload_range, value, with_revision,
};
use super::request::Head;

/// The query of a POST.
pub(super) struct Start {
    pub(super) mount: Option<Mount>,
    pub(super) digest: Option<Digest>,
}

impl Front {
    pub(super) async fn start_upload(
        &self,
        head: &Head,
        repository: &RepositoryName,
        start: Start,
        body: &mut Body,
    ) -> Result<Response, HttpError> {
        if let Some(mount) = &start.mount {
            let mounted = self.registry.mount_blob(
                &head.caller,
                mount.from.as_ref(),
                repository,
                &mount.digest,
            );
            if let Some(blob) = mounted.await? {
                return created(repository, &blob);
            }
        }
        if let (None, Some(digest)) = (&start.mount, &start.digest) {
            let chunk = head.chunk(std::mem::take(body), self.options.body_idle)?;
            let pushed = self
                .registry
                .push_blob(&head.caller, repository, digest, chunk)
                .await?;
            return created(repository, &pushed);
        }
        let started = self.registry.start_upload(&head.caller, repository).await?;
        let mut builder = with_revision(session(repository, &started.value), started.revision);
        if self.options.chunk_min_bytes > 0 {
            let length = HeaderValue::from(self.options.chunk_min_bytes);
            builder = builder.header(OCI_CHUNK_MIN_LENGTH, length);
        }
        finish(builder.status(StatusCode::ACCEPTED), Body::empty())
    }

    pub(super) async fn append_upload(
        &self,
        head: &Head,
        repository: &RepositoryName,
        id: &str,
        body: &mut Body,
    ) -> Result<Response, HttpError> {
        let chunk = head.chunk(std::mem::take(body), self.options.body_idle)?;
        let state = self
            .registry
            .append_upload(&head.caller, repository, id, chunk)
            .await;
        let state = state.map_err(|error| session_error(error.into(), repository, id))?;
        let builder = session(repository, &state).status(StatusCode::ACCEPTED);
        finish(builder, Body::empty())
    }

    pub(super) async fn upload_status(
        &self,
        head: &Head,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Response, HttpError> {
        let state = self
            .registry
            .upload_status(&head.caller, repository, id)
            .await?;
        let builder = session(repository, &state).status(StatusCode::NO_CONTENT);
        finish(builder, Body::empty())
    }

    pub(super) async fn cancel_upload(
        &self,
        head: &Head,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Response, HttpError> {
        self.registry
            .cancel_upload(&head.caller, repository, id)
            .await?;
        let builder = http::Response::builder().status(StatusCode::NO_CONTENT);
        finish(builder, Body::empty())
    }

    pub(super) async fn finish_upload(
        &self,
        head: &Head,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
        body: &mut Body,
    ) -> Result<Response, HttpError> {
        let chunk = head.chunk(std::mem::take(body), self.options.body_idle)?;
        let finished = self
            .registry
            .finish_upload(&head.caller, repository, id, digest, chunk)
            .await;
        let blob = finished.map_err(|error| session_error(error.into(), repository, id))?;
        created(repository, &blob)
    }
}

/// Headers that describe a session. The 204 of a status request needs no `Content-Length`; the others get 0.
fn session(repository: &RepositoryName, state: &UploadState) -> response::Builder {
    http::Response::builder()
        .header(LOCATION, value(&upload_path(repository, &state.id)))
        .header(RANGE, value(&upload_range(state.offset_bytes)))
        .header(DOCKER_UPLOAD_UUID, value(&state.id))
        .header(CONTENT_LENGTH, HeaderValue::from(0))
}

/// A refused chunk leaves the session as it was: the answer says how to go on.
fn session_error(error: HttpError, repository: &RepositoryName, id: &str) -> HttpError {
    if error.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return error
            .header(LOCATION, &upload_path(repository, id))
            .header(DOCKER_UPLOAD_UUID, id);
    }
    error
}

fn created(repository: &RepositoryName, blob: &Seen<BlobInfo>) -> Result<Response, HttpError> {
    created_at(
        &blob_path(repository, &blob.value.digest),
        &blob.value.digest,
        blob.revision,
    )
}

fn created_at(path: &str, digest: &Digest, revision: LogIndex) -> Result<Response, HttpError> {
    let builder = http::Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, value(path))
        .header(DOCKER_CONTENT_DIGEST, value(&digest.to_string()))
        .header(CONTENT_LENGTH, HeaderValue::from(0));
    finish(with_revision(builder, revision), Body::empty())
}
