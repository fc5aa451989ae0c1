//! The services of one or several nodes over a log, blobs and peers in one process.

mod blobs;
mod checks;
mod chunks;
mod content;
mod damage;
mod explain;
mod failed_pushes;
mod fixture;
mod gc;
mod gc_races;
mod heal;
mod lagging;
mod lists;
mod manifests;
mod owners;
mod recovery;
mod referrers;
mod tags;
mod uploads;
