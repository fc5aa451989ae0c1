//! The directories that hold blobs and uploads.
//!
//! `blobs/<algorithm>/<first two digits>/<hex>` and `blobs/uploads/<name>`. Nothing below them is followed when it is
//! a symbolic link, and nothing but regular files is opened.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use oci::Digest;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::space::Disk;
use super::{quarantine, trash};
use crate::error::BlobError;
use crate::failpoints;

/// The high-water mark of the local index.
const INDEX_MARK: &str = "hwm";

/// Longest name of a staged blob.
const MAX_NAME_BYTES: usize = 80;

/// Blobs and uploads are readable by their owner only.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Where the files of one node are.
pub(super) struct Files {
    blobs: PathBuf,
    uploads: PathBuf,
    index: PathBuf,
}

impl Files {
    /// Creates what is missing below `data`.
    pub(super) fn open(data: &Path) -> Result<Self, BlobError> {
        let files = Files::below(data);
        // RocksDB would create its own, but not make it durable in its parent: after a power cut the blobs
        // would be there and all that is known of them would not.
        for directory in [&files.blobs, &files.uploads, &files.index] {
            create_directory(directory)?;
        }
        for directory in [trash::DIRECTORY, quarantine::DIRECTORY] {
            create_directory(&files.blobs.join(directory))?;
        }
        Ok(files)
    }

    /// Where files are below `data`; creates nothing.
    pub(super) fn below(data: &Path) -> Self {
        let [blobs, index] = ["blobs", "local"].map(|name| data.join(name));
        Files {
            // On the same mount as the blobs, whatever is mounted: uploads become blobs by a rename.
            uploads: blobs.join("uploads"),
            blobs,
            index,
        }
    }

    /// The directory of the blobs.
    pub(super) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// The directory of the uploads.
    pub(super) fn uploads(&self) -> &Path {
        &self.uploads
    }

    /// Where the local index is.
    pub(super) fn index(&self) -> &Path {
        &self.index
    }

    /// What remembers how far the index got: beside the blobs, so that it does not vanish together with the index.
    pub(super) fn index_mark(&self) -> PathBuf {
        self.blobs.join(INDEX_MARK)
    }

    /// Where bytes staged under `name` go. Names that are not `[a-z0-9-]{1,80}` could leave the directory.
    pub(super) fn upload(&self, name: &str) -> Result<PathBuf, BlobError> {
        let path = self.uploads.join(name);
        if is_name(name) {
            return Ok(path);
        }
        Err(BlobError::Io {
            action: "stage",
            path,
            source: io::ErrorKind::InvalidInput.into(),
        })
    }

    /// Names of what is in the upload directory.
    pub(super) fn upload_names(&self) -> Result<Vec<String>, BlobError> {
        let fail = |error| BlobError::io("list", &self.uploads)(error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.uploads).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            names.extend(
                name.to_str()
                    .filter(|name| is_name(name))
                    .map(str::to_owned),
            );
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Where a blob belongs.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs
            .join(digest.algorithm().as_str())
            .join(&hex[..2])
            .join(hex)
    }

    /// Opens a blob; `None` when there is no regular file in its place.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<File>, BlobError> {
        open_regular(&self.blob(digest), OFlags::RDONLY)
    }

    /// Moves a synced file into its place, durably. Replaces what is there: these bytes were just verified.
    pub(super) fn place(
        &self,
        staged: &Path,
        digest: &Digest,
        disk: &Disk,
    ) -> Result<(), BlobError> {
        let path = self.blob(digest);
        let parent = parent(&path);
        failpoints::hit("after_fsync_before_rename").map_err(BlobError::io("rename", staged))?;
        match std::fs::rename(staged, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_directory(parent)?;
                std::fs::rename(staged, &path)
                    .map_err(|error| disk.write_failed("rename", staged, error))?;
            }
            renamed => renamed.map_err(|error| disk.write_failed("rename", staged, error))?,
        }
        failpoints::hit("after_rename_before_dirsync")
            .map_err(|error| disk.sync_failed(parent, error))?;
        // Without this a power cut undoes the rename, on ext4 and on xfs (protocols.md section 6.1).
        sync_directory(parent).map_err(|error| disk.sync_failed(parent, error))
    }
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Every path here was joined from at least two parts.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Creates an upload file, or empties what an interrupted upload left.
pub(super) fn create_upload(path: &Path, disk: &Disk) -> Result<File, BlobError> {
    failpoints::hit("tmp_create").map_err(BlobError::io("create", path))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut opened = rustix::fs::open(path, flags, FILE_MODE);
    if matches!(opened, Err(Errno::LOOP | Errno::ISDIR)) {
        // Whatever took the place of an upload holds none of its bytes.
        remove(path)?;
        opened = rustix::fs::open(path, flags, FILE_MODE);
    }
    opened
        .map(File::from)
        .map_err(|error| disk.write_failed("create", path, error.into()))
}

/// Opens an upload file that is already there; `None` when it is not.
pub(super) fn open_upload(path: &Path) -> Result<Option<File>, BlobError> {
    open_regular(path, OFlags::RDWR)
}

/// Opens a file for reading; `None` when there is no regular file.
pub(super) fn open_regular_file(path: &Path) -> Result<Option<File>, BlobError> {
    open_regular(path, OFlags::RDONLY)
}

/// Makes a change of the directory around `path` durable. A directory that is not there has nothing to lose.
pub(super) fn sync_parent(path: &Path, disk: &Disk) -> Result<(), BlobError> {
    let parent = parent(path);
    match sync_directory(parent) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(disk.sync_failed(parent, error))
        }
        _ => Ok(()),
    }
}

/// Removes a file, or an empty directory in its place. One that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), BlobError> {
    match crate::durable::remove_entry(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BlobError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// `O_NONBLOCK` keeps a named pipe in a file's place from holding the thread for ever.
fn open_regular(path: &Path, access: OFlags) -> Result<Option<File>, BlobError> {
    let fail = |error: io::Error| BlobError::io("open", path)(error);
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()).map(File::from) {
        Ok(file) => Ok(file.metadata().map_err(fail)?.is_file().then_some(file)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO) => Ok(None),
        Err(error) => Err(fail(error.into())),
    }
}

pub(super) fn create_directory(path: &Path) -> Result<(), BlobError> {
    crate::durable::create_dir(path).map_err(BlobError::from)
}
