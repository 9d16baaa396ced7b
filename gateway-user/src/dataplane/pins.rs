//! The pin folder: where the kernel's part of the gateway lives on when the agent does not.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use gateway_common::maps;
use rustix::mount::{MountFlags, mount};

use super::{Error, fault};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// What the names of folders of maps begin with.
const MAPS: &str = "maps-";
/// Where a BPF file system belongs.
const BPF_FS: &str = "/sys/fs/bpf";

/// How often the lock is tried, and how long apart.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// Paths below one `--pin-dir`.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    layout: String,
}

impl Pins {
    /// Names the folder; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            layout: format!("{:016x}", maps::LAYOUT),
        }
    }

    /// The layout of the maps: 16 hexadecimal digits.
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// The same pins with maps of each other layout that there is.
    pub fn others(&self) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        let mut layouts: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_prefix(MAPS)?.to_owned())
            })
            .filter(|layout| *layout != self.layout)
            .collect();
        layouts.sort();
        let root = &self.root;
        let other = |layout| Self {
            root: root.clone(),
            layout,
        };
        layouts.into_iter().map(other).collect()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the maps of this layout: programs of one layout never meet maps of another.
    pub fn maps(&self) -> PathBuf {
        self.root.join(format!("{MAPS}{}", self.layout))
    }

    /// Pin of one map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Pin of a link: `tc-eth0`, `xdp-eth0`, `sk_lookup`.
    pub fn link(&self, name: &str) -> PathBuf {
        self.root.join("links").join(name)
    }

    /// Names of all pinned links.
    pub fn links(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("links")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Pin of the program that reads the clocks.
    pub fn clock(&self) -> PathBuf {
        self.maps().join("clock")
    }

    /// Pin of the program that removes flows which are over.
    pub fn sweep(&self) -> PathBuf {
        self.maps().join("sweep")
    }

    /// Pin of the program that counts flows which the agent writes.
    pub fn live(&self) -> PathBuf {
        self.maps().join("live")
    }

    /// Makes the folders, mounting a BPF file system at its usual place if there is none.
    pub fn create(&self) -> Result<(), Error> {
        if self.root.starts_with(BPF_FS) && !on_bpf_fs(Path::new(BPF_FS)) {
            mount("bpf", BPF_FS, "bpf", MountFlags::empty(), None)
                .map_err(|errno| Error::NoBpfFs(self.root.clone(), errno.into()))?;
        }
        for dir in [self.maps(), self.root.join("links")] {
            fs::create_dir_all(&dir).map_err(|e| Error::Pin(dir.clone(), e.to_string()))?;
        }
        if on_bpf_fs(&self.root) {
            return Ok(());
        }
        Err(Error::NoBpfFs(
            self.root.clone(),
            io::Error::other("not below a BPF file system"),
        ))
    }

    /// Makes the folders and takes them for this process, until the file is closed: two agents would each carry their
    /// own plan into the same maps.
    pub fn lock(&self) -> Result<File, Error> {
        self.create()?;
        let unusable = |cause: String| Error::Pin(self.root.clone(), cause);
        let dir = File::open(&self.root).map_err(|e| unusable(e.to_string()))?;
        // Whoever looks whether they are free holds the lock for a moment.
        for _ in 1..TRIES {
            if dir.try_lock().is_ok() {
                return Ok(dir);
            }
            thread::sleep(PAUSE);
        }
        match dir.try_lock() {
            Ok(()) => Ok(dir),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(self.root.clone())),
            Err(TryLockError::Error(e)) => Err(unusable(format!("no lock: {e}"))),
        }
    }

    /// Removes the maps of this layout. Links are left alone: maps that an attached program uses live on with it.
    pub fn remove_maps(&self) -> Result<(), Error> {
        let failed = |e: io::Error| Error::Pin(self.maps(), e.to_string());
        // Where programs were pinned before they lay with their maps.
        for name in ["clock", "sweep"] {
            let _ = fs::remove_file(self.root.join(name));
        }
        // Without its record nobody takes the rest for something.
        fault::point();
        match fs::remove_file(self.map(maps::METADATA.0)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let pins = fs::read_dir(self.maps()).map_err(failed)?;
        for pin in pins.flatten() {
            fault::point();
            fs::remove_file(pin.path()).map_err(failed)?;
        }
        fault::point();
        fs::remove_dir(self.maps()).map_err(failed)
    }

    /// Removes every pin, links first so that no packet meets half a gateway. True if there were
    /// any.
    pub fn remove(&self) -> Result<bool, Error> {
        if !self.root.exists() {
            return Ok(false);
        }
        for name in self.links() {
            let path = self.link(&name);
            fs::remove_file(&path).map_err(|e| Error::Pin(path, e.to_string()))?;
        }
        fs::remove_dir_all(&self.root).map_err(|e| Error::Pin(self.root.clone(), e.to_string()))?;
        Ok(true)
    }
}

/// Whether this folder, or the nearest one above it that exists, is on a BPF file system.
pub fn holds(folder: &Path) -> bool {
    let there = folder.ancestors().find(|dir| dir.exists());
    there.is_some_and(on_bpf_fs)
}

fn on_bpf_fs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == BPF_FS_MAGIC)
}
