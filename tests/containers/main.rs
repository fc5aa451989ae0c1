//! Three containers of the shipped image on a network of their own: one is killed, paused, and cut from the network.
//!
//! Needs a docker daemon and the image `argosy:latest` (deploy/build/image), hence ignored by a plain `cargo test`;
//! `tests/run` builds the image and includes it.

mod http;
mod nodes;

use std::time::Duration;

use nodes::Cluster;

/// Long enough for a restart and an election on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker and the image argosy:latest"]
async fn a_cluster_of_containers_survives_one_lost_node() {
    let cluster = Cluster::start().await;
    cluster.wait_all_ready(PATIENCE).await;

    // What is pushed to one node is there on the others at once.
    let first = cluster.push(1, "first").await;
    cluster.expect_on(2, &first).await;
    cluster.expect_on(3, &first).await;

    // Killed: the others serve and accept.
    cluster.kill(1).await;
    let second = cluster.push_patiently(&[2, 3], "second", PATIENCE).await;
    cluster.expect_on(3, &first).await;
    cluster.start_again(1).await;
    cluster.wait_ready(1, PATIENCE).await;
    cluster.expect_on(1, &second).await;

    // Paused: it neither answers nor fails; the others must not wait for it for long.
    cluster.pause(2).await;
    let third = cluster.push_patiently(&[1, 3], "third", PATIENCE).await;
    cluster.expect_on(3, &third).await;
    cluster.unpause(2).await;
    cluster.wait_ready(2, PATIENCE).await;
    cluster.expect_on(2, &third).await;

    // Cut off: the others go on, and it catches up when it is back.
    cluster.disconnect(3);
    let fourth = cluster.push_patiently(&[1, 2], "fourth", PATIENCE).await;
    cluster.connect(3);
    cluster.wait_ready(3, PATIENCE).await;
    for pushed in [&first, &second, &third, &fourth] {
        for node in 1..=3 {
            cluster.expect_on(node, pushed).await;
        }
    }
    cluster.remove().await;
}
