//! What the clients do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::client::{Answer, Client};

const OCTETS: &str = "Content-Type: application/octet-stream\r\n";
const MANIFEST: &str = "Content-Type: application/vnd.docker.distribution.manifest.v2+json\r\n";
const LAYERS: usize = 5;

/// What a run is asked to do.
#[derive(Clone)]
pub(crate) struct Plan {
    endpoints: Vec<String>,
    clients: usize,
    count: usize,
    size_bytes: usize,
    repository: String,
    path: String,
    accept: String,
    seed: u64,
    /// A run ends after this time, whatever its count; 0: it does not.
    seconds: f64,
}

/// What was done.
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Time of one operation: half of them took less, and 99 of 100.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

type Failure = String;

impl Plan {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Plan, Failure> {
        let mut plan = Plan {
            endpoints: Vec::new(),
            clients: 1,
            count: 1,
            size_bytes: 65536,
            repository: "bench/load".into(),
            path: String::new(),
            accept: "*/*".into(),
            seed: 1,
            seconds: 0.0,
        };
        for argument in arguments {
            let (key, value) = argument
                .split_once('=')
                .ok_or(format!("{argument:?} has no ="))?;
            let number = || {
                value
                    .parse::<usize>()
                    .map_err(|_| format!("{value:?} is no number"))
            };
            match key {
                "endpoints" => plan.endpoints = value.split(',').map(str::to_owned).collect(),
                "clients" => plan.clients = number()?.max(1),
                "count" => plan.count = number()?,
                "size" => plan.size_bytes = number()?,
                "seconds" => {
                    plan.seconds = value
                        .parse()
                        .map_err(|_| format!("{value:?} is no number"))?;
                }
                "seed" => plan.seed = number()? as u64,
                "repository" => plan.repository = value.into(),
                "path" => plan.path = value.into(),
                "accept" => plan.accept = value.into(),
                _ => return Err(format!("unknown key {key:?}")),
            }
        }
        if plan.endpoints.is_empty() || plan.endpoints.iter().any(|e| !e.starts_with("127.")) {
            return Err("endpoints must be addresses of this machine (127.x.x.x:port)".into());
        }
        Ok(plan)
    }

    fn client(&self, number: usize) -> Client {
        Client::new(&self.endpoints[number % self.endpoints.len()])
    }
}

pub(crate) fn run(scenario: &str, plan: &Plan) -> Result<Outcome, Failure> {
    match scenario {
        "push" => push(plan),
        "pull" | "manifests" | "list" => get(plan),
        "images" => images(plan),
        "mounts" => mounts(plan),
        "deletes" => deletes(plan),
        "tags" => tags(plan),
        "repositories" => repositories(plan),
        _ => Err("unknown scenario".into()),
    }
}

/// Runs `work(client, number)` for every number below `count`, spread over the clients, and takes the time.
fn spread(
    plan: &Plan,
    count: usize,
    work: impl Fn(&mut Client, usize) -> Result<u64, Failure> + Sync,
) -> Result<Outcome, Failure> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let is_over = || plan.seconds > 0.0 && started.elapsed().as_secs_f64() >= plan.seconds;
    let results: Vec<Result<Done, Failure>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|number| {
                let (next, work, is_over) = (&next, &work, &is_over);
                scope.spawn(move || {
                    let mut client = plan.client(number);
                    let mut done = Done::default();
                    loop {
                        let item = next.fetch_add(1, Ordering::Relaxed);
                        if item >= count || is_over() {
                            return Ok(done);
                        }
                        let begun = Instant::now();
                        done.bytes += work(&mut client, item)?;
                        done.millis.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                })
            })
            .collect();
        let joined = clients.into_iter().map(|client| client.join());
        joined
            .map(|result| result.unwrap_or(Err("a client panicked".into())))
            .collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut all = Done::default();
    for result in results {
        let done = result?;
        all.bytes += done.bytes;
        all.millis.extend(done.millis);
    }
    all.millis.sort_by(f64::total_cmp);
    Ok(Outcome {
        operations: all.millis.len() as u64,
        bytes: all.bytes,
        seconds,
        p50_ms: all.percentile(50),
        p99_ms: all.percentile(99),
    })
}

/// What one client did.
#[derive(Default)]
struct Done {
    bytes: u64,
    /// How long each operation took.
    millis: Vec<f64>,
}

impl Done {
    /// Of sorted times.
    fn percentile(&self, percent: usize) -> f64 {
        let last = self.millis.len().saturating_sub(1);
        self.millis
            .get((self.millis.len() * percent / 100).min(last))
            .copied()
            .unwrap_or(0.0)
    }
}

fn expect(answer: Answer, status: u16, what: &str) -> Result<Answer, Failure> {
    if answer.status == status {
        return Ok(answer);
    }
    Err(format!("{what}: {} instead of {status}", answer.status))
}

fn send(
    client: &mut Client,
    method: &str,
    path: &str,
    headers: &str,
    body: &[&[u8]],
    status: u16,
) -> Result<Answer, Failure> {
    let answer = client.send(method, path, headers, body);
    expect(
        answer.map_err(|error| format!("{method} {path}: {error}"))?,
        status,
        path,
    )
}

fn digest_of(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Bytes that no compression or page of zeroes makes cheap; the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn upload(
    client: &mut Client,
    repository: &str,
    digest: &str,
    body: &[&[u8]],
) -> Result<(), Failure> {
    let start = format!("/v2/{repository}/blobs/uploads/");
    let location = send(client, "POST", &start, "", &[], 202)?
        .location
        .ok_or("no Location")?;
    let sign = if location.contains('?') { '&' } else { '?' };
    let path = format!("{location}{sign}digest={digest}");
    send(client, "PUT", &path, OCTETS, body, 201).map(|_| ())
}

/// `count` blobs of `size` bytes, all different.
fn push(plan: &Plan) -> Result<Outcome, Failure> {
    let shared = noise(plan.seed, plan.size_bytes.saturating_sub(8));
    let blobs: Vec<([u8; 8], String)> = (0..plan.count)
        .map(|number| {
            let mark = (plan.seed * 1_000_003 + number as u64).to_le_bytes();
            (mark, digest_of(&[&mark, &shared]))
        })
        .collect();
    spread(plan, plan.count, |client, number| {
        let (mark, digest) = &blobs[number];
        upload(client, &plan.repository, digest, &[mark, &shared])?;
        Ok(plan.size_bytes as u64)
    })
}

/// `count` times GET `path`.
fn get(plan: &Plan) -> Result<Outcome, Failure> {
    let accept = format!("Accept: {}\r\n", plan.accept);
    spread(plan, plan.count, |client, _| {
        Ok(send(client, "GET", &plan.path, &accept, &[], 200)?.body_bytes)
    })
}

/// An image: five layers and a config, pushed as a client does it: look, upload what is missing, push the manifest.
fn push_image(client: &mut Client, plan: &Plan, number: usize) -> Result<u64, Failure> {
    let mut descriptors = Vec::new();
    for layer in 0..=LAYERS {
        let size = if layer == 0 { 1024 } else { plan.size_bytes };
        let seed = plan.seed * 1_000_003 + (number * (LAYERS + 1) + layer) as u64;
        let body = noise(seed, size);
        let digest = digest_of(&[&body]);
        let path = format!("/v2/{}/blobs/{digest}", plan.repository);
        send(client, "HEAD", &path, "", &[], 404)?;
        upload(client, &plan.repository, &digest, &[&body])?;
        descriptors.push((digest, size));
    }
    let manifest = manifest(&descriptors);
    let path = format!("/v2/{}/manifests/image-{number}", plan.repository);
    send(client, "PUT", &path, MANIFEST, &[manifest.as_bytes()], 201)?;
    Ok(descriptors.iter().map(|(_, size)| *size as u64).sum())
}

fn manifest(descriptors: &[(String, usize)]) -> String {
    let describe = |kind: &str, (digest, size): &(String, usize)| {
        format!("{{\"mediaType\":\"{kind}\",\"size\":{size},\"digest\":\"{digest}\"}}")
    };
    let config = describe(
        "application/vnd.docker.container.image.v1+json",
        &descriptors[0],
    );
    let layers: Vec<String> = descriptors[1..]
        .iter()
        .map(|layer| describe("application/vnd.docker.image.rootfs.diff.tar.gzip", layer))
        .collect();
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\
         \"config\":{config},\"layers\":[{}]}}",
        layers.join(",")
    )
}

fn images(plan: &Plan) -> Result<Outcome, Failure> {
    spread(plan, plan.count, |client, number| {
        push_image(client, plan, number)
    })
}

/// `count` mounts of one blob into as many repositories.
fn mounts(plan: &Plan) -> Result<Outcome, Failure> {
    let body = noise(plan.seed, 4096);
    let digest = digest_of(&[&body]);
    upload(&mut plan.client(0), &plan.repository, &digest, &[&body])?;
    spread(plan, plan.count, |client, number| {
        let from = &plan.repository;
        let path = format!("/v2/{from}-mounted-{number}/blobs/uploads/?mount={digest}&from={from}");
        send(client, "POST", &path, "", &[], 201).map(|_| 0)
    })
}

/// Deletes `count` manifests that are pushed first, outside the time.
fn deletes(plan: &Plan) -> Result<Outcome, Failure> {
    let mut client = plan.client(0);
    let config = noise(plan.seed, 512);
    let digest = digest_of(&[&config]);
    upload(&mut client, &plan.repository, &digest, &[&config])?;
    let mut digests = Vec::new();
    for number in 0..plan.count {
        let mut body = manifest(&[(digest.clone(), config.len())]);
        body.push_str(&" ".repeat(number));
        let path = format!("/v2/{}/manifests/delete-{number}", plan.repository);
        send(&mut client, "PUT", &path, MANIFEST, &[body.as_bytes()], 201)?;
        digests.push(digest_of(&[body.as_bytes()]));
    }
    spread(plan, plan.count, |client, number| {
        let path = format!("/v2/{}/manifests/{}", plan.repository, digests[number]);
        send(client, "DELETE", &path, "", &[], 202).map(|_| 0)
    })
}

/// One manifest under `count` tags.
fn tags(plan: &Plan) -> Result<Outcome, Failure> {
    let config = noise(plan.seed, 512);
    let digest = digest_of(&[&config]);
    upload(&mut plan.client(0), &plan.repository, &digest, &[&config])?;
    let body = manifest(&[(digest, config.len())]);
    spread(plan, plan.count, |client, number| {
        let path = format!("/v2/{}/manifests/tag-{number:06}", plan.repository);
        send(client, "PUT", &path, MANIFEST, &[body.as_bytes()], 201).map(|_| 0)
    })
}

/// One small image in each of `count` repositories.
fn repositories(plan: &Plan) -> Result<Outcome, Failure> {
    let config = noise(plan.seed, 512);
    let digest = digest_of(&[&config]);
    let body = manifest(&[(digest.clone(), config.len())]);
    spread(plan, plan.count, |client, number| {
        let repository = format!("{}/{number:05}", plan.repository);
        upload(client, &repository, &digest, &[&config])?;
        let path = format!("/v2/{repository}/manifests/latest");
        send(client, "PUT", &path, MANIFEST, &[body.as_bytes()], 201).map(|_| 0)
    })
}
