//! Compiles every `*/v1/*.proto` of this package. protox is a protobuf compiler in Rust: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let mut schemas = Vec::new();
    for topic in fs::read_dir(&root)? {
        let directory = topic?.path().join("v1");
        if !directory.is_dir() {
            continue;
        }
        println!("cargo:rerun-if-changed={}", directory.display());
        for file in fs::read_dir(&directory)? {
            let file = file?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "proto")
            {
                schemas.push(file);
            }
        }
    }
    schemas.sort();
    let files = protox::compile(&schemas, [&root])?;
    // Without the feature only messages are generated, so that tonic is not needed to name them.
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(grpc)
        .build_server(grpc)
        .compile_fds(files)?;
    Ok(())
}
