//! A file system of its own for one node, on a loop device: it can be full, lose its power, and be copied.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long a dying process may keep a file system busy.
const UNMOUNT_TRIES: usize = 200;

/// What a file system may keep back from `fallocate`.
const BY_HAND_BYTES: u64 = 128 << 20;

/// A mounted image.
pub(crate) struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
    is_xfs: bool,
}

/// Runs a program and says what it said when it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or("")
}

/// Why file systems cannot be made here; `None` when they can.
pub(crate) fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root: file systems are mounted from loop devices".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("it needs loop devices: there is no /dev/loop-control".to_owned());
    }
    let missing = ["mkfs.ext4", "mkfs.xfs", "xfs_io"]
        .into_iter()
        .find(|tool| {
            let paths = ["/usr/sbin", "/sbin", "/usr/bin"];
            !paths.iter().any(|path| Path::new(path).join(tool).exists())
        });
    missing.map(|tool| format!("{tool} is not installed (Debian: e2fsprogs, xfsprogs)"))
}

impl Disk {
    /// Makes and mounts an image in `directory`: odd nodes have ext4, even ones xfs.
    pub(crate) fn create(directory: &Path, node: u64, bytes: u64) -> Result<Disk> {
        let disk = Disk {
            image: directory.join("image"),
            mount_point: directory.join("mount"),
            is_xfs: node.is_multiple_of(2),
        };
        File::create(&disk.image)?.set_len(bytes)?;
        fs::create_dir_all(&disk.mount_point)?;
        let image = text(&disk.image);
        if disk.is_xfs {
            run("mkfs.xfs", &["-q", image])?;
        } else {
            run("mkfs.ext4", &["-q", "-m", "0", image])?;
        }
        disk.mount()?;
        Ok(disk)
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    pub(crate) fn mount(&self) -> Result<()> {
        run(
            "mount",
            &["-o", "loop", text(&self.image), text(&self.mount_point)],
        )
    }

    /// Waits for a process that is ending.
    pub(crate) fn unmount(&self) -> Result<()> {
        let mut last = Ok(());
        for _ in 0..UNMOUNT_TRIES {
            last = run("umount", &[text(&self.mount_point)]);
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        last
    }

    /// From now on nothing reaches the disk, not even what the file system has written but not synced: a power cut.
    /// The file system is dead until it is mounted again.
    pub(crate) fn cut_power(&self) -> Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.mount_point)])
    }

    fn filler(&self) -> PathBuf {
        self.mount_point.join("filler")
    }

    /// Leaves at most `left_bytes` free.
    pub(crate) fn fill(&self, left_bytes: u64) -> Result<()> {
        let free = rustix::fs::statvfs(&self.mount_point)?;
        let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
        let filler = self.filler();
        // At once as far as the file system surely can, the rest by hand: what it needs for itself is its secret.
        let at_once = free_bytes.saturating_sub(left_bytes.max(BY_HAND_BYTES));
        if at_once > 0 {
            run("fallocate", &["-l", &at_once.to_string(), text(&filler)])?;
        }
        if left_bytes == 0 {
            let mut file = File::options().create(true).append(true).open(&filler)?;
            let zeros = vec![0; 64 << 10];
            // The last piece fails: that is when it is full.
            while file.write_all(&zeros).is_ok() {}
            let _ = file.sync_data();
        }
        Ok(())
    }

    /// Gives the space back.
    pub(crate) fn empty(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A copy of the image as it is now, mounted at `mount_point`: what a crash at this moment leaves.
    pub(crate) fn copy(&self, image: &Path, mount_point: &Path) -> Result<Disk> {
        run("cp", &["--sparse=always", text(&self.image), text(image)])?;
        fs::create_dir_all(mount_point)?;
        let copy = Disk {
            image: image.to_owned(),
            mount_point: mount_point.to_owned(),
            is_xfs: self.is_xfs,
        };
        // The copy of an xfs has the same uuid as the one that is mounted.
        let options = if self.is_xfs { "loop,nouuid" } else { "loop" };
        run("mount", &["-o", options, text(image), text(mount_point)])?;
        Ok(copy)
    }
}
