//! The store against a model a page long: random operations, restarts at random points. After each the store must give
//! what the model says, list what it says, and have no file that it gives no reason for.
//!
//! `ARGOSY_SEED=N` runs one seed, `ARGOSY_SEEDS=COUNT` more of them. A failure prints its seed and what was done.

mod care;
mod reference;
mod run;

use run::Run;

const SEEDS: u64 = 12;
const STEPS: usize = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_does_what_the_model_says() {
    let seeds = match number("ARGOSY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ARGOSY_SEEDS").unwrap_or(SEEDS),
    };
    let mut steps = std::collections::BTreeMap::new();
    for seed in seeds {
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            run.step().await;
        }
        for (name, count) in run.finish().await {
            *steps.entry(name).or_insert(0) += count;
        }
    }
    // A model in which nothing happens agrees with everything.
    if number("ARGOSY_SEED").is_none() {
        for name in [
            "commit", "read", "read rot", "removed", "needed", "moved", "adopt", "resumed",
            "restart", "trashed",
        ] {
            assert!(
                steps.get(name).is_some_and(|count| *count > 2),
                "{name} hardly happened: {steps:?}"
            );
        }
    }
}
