//! One process. Its directory and ports stay the same over restarts.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::disk::Disk;

/// SIGTERM drains requests for at most 20 s, and background work and consensus have their times too.
const STOP_TIME: Duration = Duration::from_secs(60);
/// Debian's libfaketime, by architecture.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// What a node with failpoints follows, beside its configuration.
const FAILPOINTS: &str = "failpoints";

/// The program under test: `ARGOSY_BIN_DIR`, or where `cargo build` puts it.
pub(crate) fn binary() -> Result<PathBuf> {
    let directory = match std::env::var_os("ARGOSY_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            PathBuf::from(target).join("debug")
        }
    };
    let path = directory.join("argosy");
    if !path.exists() {
        bail!(
            "{} does not exist; build it, or set ARGOSY_BIN_DIR",
            path.display()
        );
    }
    Ok(path)
}

/// The library that fakes the clock of a dynamically linked program.
pub(crate) fn faketime() -> Result<&'static str> {
    FAKETIME
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("libfaketime is not installed (Debian: libfaketime)")
}

/// A node of the cluster.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    directory: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) disk: Option<Disk>,
    has_fake_clock: bool,
    child: Mutex<Option<Child>>,
    lives: AtomicU64,
}

impl Node {
    pub(crate) fn new(
        id: u64,
        http: SocketAddr,
        grpc: SocketAddr,
        directory: PathBuf,
        data: PathBuf,
        disk: Option<Disk>,
        has_fake_clock: bool,
    ) -> Node {
        Node {
            id,
            http,
            grpc,
            directory,
            data,
            disk,
            has_fake_clock,
            child: Mutex::default(),
            lives: AtomicU64::new(0),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it printed, over all its lives.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Does nothing when it runs.
    pub(crate) fn start(&self) -> Result<()> {
        let mut child = self.child();
        if child.is_none() {
            let mut command = command(&self.directory.join("config.toml"), &self.log())?;
            if self.has_fake_clock {
                self.set_clock("+0")?;
                command
                    .env("LD_PRELOAD", faketime()?)
                    .env("FAKETIME_TIMESTAMP_FILE", self.clock())
                    .env("FAKETIME_CACHE_DURATION", "1")
                    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            }
            self.lives.fetch_add(1, Ordering::SeqCst);
            *child = Some(command.spawn().context("cannot start argosy")?);
        }
        Ok(())
    }

    /// How often it was started.
    pub(crate) fn lives(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }

    fn clock(&self) -> PathBuf {
        self.directory.join("clock")
    }

    /// Moves the wall clock of the process to another time, in libfaketime's words (`+3d`); the running process
    /// notices within a second.
    pub(crate) fn set_clock(&self, offset: &str) -> Result<()> {
        let part = self.directory.join("clock.part");
        fs::write(&part, format!("{offset}\n"))?;
        Ok(fs::rename(part, self.clock())?)
    }

    /// Sets the failpoints of the node, now or when it starts. Returns what the node prints once it knows.
    pub(crate) fn set_failpoints(&self, text: &str) -> Result<String> {
        let part = self.directory.join("failpoints.part");
        fs::write(&part, text)?;
        fs::rename(part, self.directory.join(FAILPOINTS))?;
        Ok(format!(
            "failpoints set: {}",
            text.trim().replace('\n', "; ")
        ))
    }

    /// Bytes it has printed so far.
    pub(crate) fn printed_bytes(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |metadata| metadata.len())
    }

    /// What it printed after `from_bytes`.
    pub(crate) fn printed_since(&self, from_bytes: u64) -> Result<String> {
        let mut file = File::open(self.log())?;
        file.seek(SeekFrom::Start(from_bytes))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How it ended by itself, if it did; then it does not count as running.
    pub(crate) fn ended(&self) -> Option<String> {
        self.check_alive().err().map(|error| error.to_string())
    }

    /// Replaces words of its configuration; they count from its next start.
    pub(crate) fn edit_configuration(&self, from: &str, to: &str) -> Result<()> {
        let path = self.directory.join("config.toml");
        let text = fs::read_to_string(&path)?.replace(from, to);
        Ok(fs::write(path, text)?)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child().is_some()
    }

    /// Whether it ended without being told to; then it counts as not running.
    ///
    /// # Errors
    /// It did.
    pub(crate) fn check_alive(&self) -> Result<()> {
        let mut child = self.child();
        let Some(running) = child.as_mut() else {
            bail!("node {} does not run", self.id);
        };
        if let Some(status) = running.try_wait()? {
            *child = None;
            bail!("node {} ended by itself: {status}", self.id);
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let child = self.child();
        let pid = child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
            .and_then(Pid::from_raw);
        // Not yet waited for, so the number is still its own.
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, as an operator would.
    ///
    /// # Errors
    /// It did not end in time, or not with 0.
    pub(crate) fn stop(&self) -> Result<()> {
        self.resume();
        self.signal(Signal::TERM);
        let Some(mut child) = self.child().take() else {
            return Ok(());
        };
        let deadline = Instant::now() + STOP_TIME;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("node {} stopped with {status}", self.id),
                None if Instant::now() >= deadline => {
                    child.kill()?;
                    child.wait()?;
                    bail!(
                        "node {} did not stop within {} s",
                        self.id,
                        STOP_TIME.as_secs()
                    );
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// `argosy serve` with its output appended to `log`.
pub(crate) fn command(config: &Path, log: &Path) -> Result<Command> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(binary()?);
    command
        .args(["serve", "--config"])
        .arg(config)
        .env("RUST_BACKTRACE", "1")
        .env("FAILPOINTS_FILE", config.with_file_name(FAILPOINTS))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}
