//! `clusterctl completions` and `clusterctl man`: what shells and readers of manuals want.

use std::io;
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

use crate::client::CommandError;

/// How to write the manual.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArguments {
    /// Write a page for each command into this directory, such as /usr/local/share/man/man1.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints what the shell loads to complete half-typed commands.
pub(crate) fn completions(mut command: Command, shell: Shell) {
    clap_complete::generate(shell, &mut command, "clusterctl", &mut io::stdout());
}

/// Prints the page of the program, or writes all pages.
pub(crate) fn man(command: Command, arguments: ManArguments) -> Result<(), CommandError> {
    let written = match &arguments.dir {
        None => clap_mangen::Man::new(command).render(&mut io::stdout()),
        Some(dir) => clap_mangen::generate_to(command, dir),
    };
    let place = arguments.dir.as_ref();
    let place = place.map_or_else(|| "the manual".to_owned(), |dir| dir.display().to_string());
    written.map_err(|error| CommandError::Refused(format!("cannot write {place}: {error}")))
}
