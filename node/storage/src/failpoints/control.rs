//! What a point does when it is set, and how a test sets the points of a process that runs.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// What is said here must be on disk before the process may die: one write, past every buffer and filter.
fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Carries out what `name` is set to.
pub(super) fn perform(name: &str, action: Option<&str>) -> io::Result<()> {
    let action = action.unwrap_or("EIO");
    say(&format!("failpoint {name} fired: {action}"));
    match action {
        "ENOSPC" => Err(io::ErrorKind::StorageFull.into()),
        "abort" => std::process::abort(),
        "panic" => panic!("failpoint {name}"),
        _ => match action.strip_prefix("delay ").map(str::parse) {
            Some(Ok(milliseconds)) => {
                std::thread::sleep(Duration::from_millis(milliseconds));
                Ok(())
            }
            _ => Err(io::Error::other(format!("failpoint {name}"))),
        },
    }
}

/// Sets what `FAILPOINTS` says, and from now on what the file `FAILPOINTS_FILE` says, as often as it changes.
pub(super) fn start() -> fail::FailScenario<'static> {
    let scenario = fail::FailScenario::setup();
    // A panic ends a release at once (`panic = "abort"`): a test must not see anything milder.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    if let Some(path) = std::env::var_os("FAILPOINTS_FILE").map(PathBuf::from) {
        let mut seen = String::new();
        let mut set = BTreeSet::new();
        follow(&path, &mut seen, &mut set);
        let name = "failpoints".to_owned();
        let follower = std::thread::Builder::new().name(name).spawn(move || {
            loop {
                std::thread::sleep(PAUSE);
                follow(&path, &mut seen, &mut set);
            }
        });
        if let Err(error) = follower {
            say(&format!("failpoints cannot be followed: {error}"));
        }
    }
    scenario
}

/// Lines `name=action`. Others are repeated for whoever waits until a change has arrived, and mean nothing here.
fn follow(path: &Path, seen: &mut String, set: &mut BTreeSet<String>) {
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    if text == *seen {
        return;
    }
    let wanted = text.lines().filter_map(|line| line.split_once('='));
    let mut now = BTreeSet::new();
    for (name, action) in wanted {
        if let Err(error) = fail::cfg(name, action) {
            say(&format!("failpoint {name}: {error}"));
        }
        now.insert(name.to_owned());
    }
    for name in set.difference(&now) {
        fail::remove(name);
    }
    *set = now;
    say(&format!(
        "failpoints set: {}",
        text.trim().replace('\n', "; ")
    ));
    *seen = text;
}
