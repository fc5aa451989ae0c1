//! What a check found, for people and for programs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Note,
    /// Nothing is wrong, and worth knowing when something else is.
    Warning,
    /// Something is wrong; the cluster may still be whole.
    Error,
    /// The directory could not be checked.
    Unchecked,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which data directory; none: between several.
    pub directory: Option<PathBuf>,
    /// What it is, in words.
    pub what: String,
}

/// Everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which it was found.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn note(&mut self, directory: &Path, what: impl Into<String>) {
        self.add(Severity::Note, Some(directory), what.into());
    }

    pub(super) fn warning(&mut self, directory: &Path, what: impl Into<String>) {
        self.add(Severity::Warning, Some(directory), what.into());
    }

    pub(super) fn error(&mut self, directory: &Path, what: impl Into<String>) {
        self.add(Severity::Error, Some(directory), what.into());
    }

    pub(super) fn unchecked(&mut self, directory: &Path, what: impl Into<String>) {
        self.add(Severity::Unchecked, Some(directory), what.into());
    }

    pub(super) fn error_between(&mut self, what: impl Into<String>) {
        self.add(Severity::Error, None, what.into());
    }

    fn add(&mut self, severity: Severity, directory: Option<&Path>, what: String) {
        self.findings.push(Finding {
            severity,
            directory: directory.map(Path::to_path_buf),
            what,
        });
    }

    /// 0: nothing is wrong; 1: something is; 2: a directory could not be checked.
    pub fn exit_code(&self) -> u8 {
        let worst = self.findings.iter().map(|finding| match finding.severity {
            Severity::Note | Severity::Warning => 0,
            Severity::Error => 1,
            Severity::Unchecked => 2,
        });
        worst.max().unwrap_or(0)
    }

    /// Prints it, as JSON or in words.
    pub fn print(&self, json: bool) -> ExitCode {
        if json {
            let text =
                serde_json::json!({"exit_code": self.exit_code(), "findings": self.findings});
            println!("{text:#}");
        } else {
            print!("{self}");
        }
        ExitCode::from(self.exit_code())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = match finding.severity {
                Severity::Note => "ok      ",
                Severity::Warning => "NOTE    ",
                Severity::Error => "WRONG   ",
                Severity::Unchecked => "UNKNOWN ",
            };
            match &finding.directory {
                Some(directory) => writeln!(f, "{mark}{}: {}", directory.display(), finding.what)?,
                None => writeln!(f, "{mark}together: {}", finding.what)?,
            }
        }
        match self.exit_code() {
            0 => writeln!(f, "nothing is wrong"),
            1 => writeln!(f, "something is wrong: see above"),
            _ => writeln!(f, "not everything could be checked: see above"),
        }
    }
}
