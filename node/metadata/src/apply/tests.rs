//! Each command by hand, then all of them at random.

mod blobs;
mod cluster;
mod cost;
mod manifests;
mod placements;
mod random;
mod sessions;
mod tags;
mod tickets;
