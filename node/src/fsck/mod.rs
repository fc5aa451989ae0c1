//! `argosy fsck`: looks at the data directories of nodes that do not run, each for itself and all together, and says
//! in words what is wrong. Changes nothing.

mod directory;
mod report;
mod together;
mod unaccounted;

use std::path::PathBuf;

pub use report::{Finding, Report, Severity};

use directory::Checked;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct FsckOptions {
    /// Data directories; several of one cluster are compared with each other.
    pub directories: Vec<PathBuf>,
    /// Compare lengths of blobs only, and do not read them.
    pub quick: bool,
    /// The nodes had time to settle before they were stopped: files without a reason are wrong.
    pub settled: bool,
}

/// Checks. Blocks, and reads every blob unless `quick`.
pub fn run(options: &FsckOptions) -> Report {
    let mut report = Report::default();
    let mut checked: Vec<Checked> = Vec::new();
    for path in &options.directories {
        checked.extend(directory::check(path, options, &mut report));
    }
    if options.directories.len() > 1 {
        together::check(&checked, &mut report);
    }
    report
}

#[cfg(test)]
mod tests;
