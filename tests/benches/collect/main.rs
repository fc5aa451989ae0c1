//! What garbage collection costs when little of much is deleted: the same images are deleted from a large state and
//! from one a tenth as large, and collected by the commands that the leader proposes. Files play no part; the state is
//! made by applying entries.
//!
//! Prints entries, keys read and written, and times for both, and the large one's as ratio to the small one's: 1 when
//! the work follows what is deleted. The scan that confirms a delete reads every manifest, so it follows what is
//! stored; it stands on a line of its own.

mod state;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use metadata::command::{Command, DeleteBlobs, DeleteManifest, GcLimits, GcStep};
use metadata::query;
use metadata::response::Response;
use oci::{Digest, Manifest};

use state::{BLOBS_PER_IMAGE, State, Work, manifest, repository};

/// As the leader does by default (`gc.step_budget`).
const STEP_BUDGET: u32 = 500;

/// Pages of the scan, as the verifier reads them.
const PAGE_MANIFESTS: usize = 256;
const PAGE_BYTES: usize = 2 << 20;

#[derive(Parser)]
#[command(about = "Measures garbage collection on a synthetic state")]
struct Options {
    /// Images of the large state, each of five blobs of its own; the small one has a tenth.
    #[arg(long, default_value_t = 200_000)]
    images: usize,
    /// Of a hundred images of the large state, so many are deleted; as many in number in the small one.
    #[arg(long, default_value_t = 1)]
    percent: usize,
    /// Where the states are kept meanwhile; a temporary directory when absent.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// One stage of a run.
#[derive(Clone, Copy, Default)]
struct Stage {
    work: Work,
    seconds: f64,
}

struct Run {
    fill: Stage,
    delete: Stage,
    collect: Stage,
    scan: Stage,
    deleted_blobs: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let home = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let deleted = options.images * options.percent / 100;
    let small = run(&home.path().join("small"), options.images / 10, deleted)?;
    let large = run(&home.path().join("large"), options.images, deleted)?;
    println!(
        "{deleted} images of {BLOBS_PER_IMAGE} blobs deleted from {} and from {}; {} blobs collected from each",
        options.images / 10,
        options.images,
        large.deleted_blobs
    );
    if small.deleted_blobs != large.deleted_blobs {
        bail!("the small state lost {} blobs", small.deleted_blobs);
    }
    print("fill (seconds only)", small.fill, large.fill);
    print("delete manifests", small.delete, large.delete);
    print("collect: steps and deletes", small.collect, large.collect);
    print("confirm: scan of manifests", small.scan, large.scan);
    Ok(())
}

fn print(title: &str, small: Stage, large: Stage) {
    let cells = [
        (
            "entries",
            small.work.entries as f64,
            large.work.entries as f64,
        ),
        ("reads", small.work.reads as f64, large.work.reads as f64),
        ("writes", small.work.writes as f64, large.work.writes as f64),
        ("seconds", small.seconds, large.seconds),
    ];
    let cells: Vec<String> = cells
        .iter()
        .map(|(what, small, large)| {
            let digits = if *what == "seconds" { 3 } else { 0 };
            let ratio = if *small > 0.0 { large / small } else { 1.0 };
            format!("{what} {small:.digits$} -> {large:.digits$} ({ratio:.2}x)")
        })
        .collect();
    println!("{title:28} {}", cells.join("   "));
}

fn run(directory: &Path, images: usize, deleted: usize) -> Result<Run> {
    let mut state = State::create(directory)?;
    let fill = stage(&mut state, |state| state.fill(images))?.0;
    let every = images / deleted.max(1);
    let gone: Vec<usize> = (0..deleted).map(|number| number * every).collect();
    let delete = stage(&mut state, |state| {
        for chunk in gone.chunks(256) {
            let commands: Result<Vec<Command>> = chunk.iter().map(|image| delete(*image)).collect();
            state.apply(commands?)?;
        }
        Ok(())
    })?
    .0;
    let (steps, ()) = stage(&mut state, step_until_done)?;
    let condemned = state.look(|view| query::condemned_blobs(view, 0, None, 1_000_000))?;
    let candidates: HashSet<Digest> = condemned.iter().map(|blob| blob.digest).collect();
    let (scan, named) = stage(&mut state, |state| scan(state, &candidates))?;
    if named > 0 {
        bail!("{named} manifests name what is to be deleted");
    }
    let (deletes, deleted_blobs) = stage(&mut state, |state| {
        let mut blobs = 0;
        for batch in condemned.chunks(STEP_BUDGET as usize) {
            let command = Command::DeleteBlobs(DeleteBlobs {
                epoch: 0,
                quarantine_ms: 0,
                blobs: batch.to_vec(),
            });
            match state.apply(vec![command])?.pop() {
                Some(Response::BlobsDeleted(done)) => blobs += done.digests.len(),
                other => bail!("unexpected answer {other:?}"),
            }
        }
        Ok(blobs)
    })?;
    Ok(Run {
        fill,
        delete,
        collect: sum(steps, deletes),
        scan,
        deleted_blobs,
    })
}

/// Runs `work` and says what it took.
fn stage<T>(state: &mut State, work: impl FnOnce(&mut State) -> Result<T>) -> Result<(Stage, T)> {
    state.work = Work::default();
    let started = Instant::now();
    let value = work(state)?;
    let seconds = started.elapsed().as_secs_f64();
    let work = state.work;
    Ok((Stage { work, seconds }, value))
}

fn sum(one: Stage, other: Stage) -> Stage {
    Stage {
        work: Work {
            entries: one.work.entries + other.work.entries,
            reads: one.work.reads + other.work.reads,
            writes: one.work.writes + other.work.writes,
        },
        seconds: one.seconds + other.seconds,
    }
}

fn delete(image: usize) -> Result<Command> {
    Ok(Command::DeleteManifest(DeleteManifest {
        repository: repository(image)?,
        digest: manifest(image).0,
    }))
}

/// Everything is due at once, so a step is the work and not the waiting.
fn step_until_done(state: &mut State) -> Result<()> {
    loop {
        let step = Command::GcStep(GcStep {
            epoch: 0,
            limits: GcLimits::default(),
            budget: STEP_BUDGET,
        });
        match state.apply(vec![step])?.pop() {
            Some(Response::GcStepped(done)) if done.is_more_due => {}
            Some(Response::GcStepped(_)) => return Ok(()),
            other => bail!("unexpected answer {other:?}"),
        }
    }
}

/// The second opinion: how many manifests name a candidate.
fn scan(state: &mut State, candidates: &HashSet<Digest>) -> Result<u64> {
    let (mut after, mut named) = (None, 0);
    loop {
        let page =
            state.look(|view| query::manifest_bodies(view, after, PAGE_MANIFESTS, PAGE_BYTES))?;
        let Some(last) = page.last() else {
            return Ok(named);
        };
        after = Some((last.repository, last.digest));
        for stored in &page {
            let parsed = Manifest::parse(stored.media_type.as_ref(), &stored.body);
            let parsed = parsed.context("a stored manifest cannot be read")?;
            let names = parsed.blobs().any(|blob| candidates.contains(&blob.digest));
            named += u64::from(names);
        }
    }
}
