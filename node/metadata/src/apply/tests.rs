//! Each command by hand, then all of them at random.

mod blobs;
mod cluster;
mod collect;
mod cost;
mod manifests;
mod node_states;
mod placements;
mod random;
mod remember;
mod restore;
mod sessions;
mod tags;
mod tickets;
mod unneeded;
