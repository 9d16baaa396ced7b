//! Reads the files of a manifest directory, within bounds.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::OFlags;

use crate::{
    manifest::File,
    problem::{ObjectRef, Problem},
};

/// What a manifest directory may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Files read.
    pub files: usize,
    /// Largest file, in bytes.
    pub file_bytes: usize,
    /// All files together, in bytes.
    pub total_bytes: usize,
    /// Folders below the directory.
    pub depth: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            files: 10_000,
            file_bytes: 1 << 20,
            total_bytes: 64 << 20,
            depth: 8,
        }
    }
}

/// What a directory holds at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Listing {
    /// Folders under `clusters/`.
    pub(super) clusters: Vec<String>,
    pub(super) files: Vec<File>,
    /// What is missing from this listing; empty when it is complete.
    pub(super) gaps: Vec<Gap>,
}

/// Something that could not be listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Gap {
    /// Files under this path (`clusters/c1/`, empty for all) may exist unseen; `None` when nothing is unseen.
    pub(super) unseen: Option<String>,
    pub(super) problem: Problem,
}

/// Lists `root`. Hidden and editor files are skipped, symbolic links followed, as in a mounted ConfigMap.
pub(super) fn list(root: &Path, bounds: Bounds) -> Listing {
    let mut walk = Walk {
        bounds,
        listing: Listing::default(),
        bytes: 0,
        full: false,
    };
    match identity(root) {
        Err(error) => walk.gap(
            ".",
            Some(String::new()),
            format!(
                "the manifest directory {} cannot be read: {error}",
                root.display()
            ),
        ),
        Ok(identity) => {
            walk.top(root);
            for folder in ["fleet", "clusters"] {
                walk.folder(&root.join(folder), folder, &mut vec![identity]);
            }
        }
    }
    walk.listing
        .files
        .sort_by(|one, other| one.path.cmp(&other.path));
    walk.listing.clusters.sort();
    walk.listing
}

/// Lists every manifest below `root`, whatever the folders are called; or `root` itself, if it is a file of any name.
pub(super) fn list_all(root: &Path, bounds: Bounds) -> Listing {
    let mut walk = Walk {
        bounds,
        listing: Listing::default(),
        bytes: 0,
        full: false,
    };
    match fs::metadata(root) {
        Err(error) => walk.file(
            root.display().to_string(),
            Err(format!("cannot be read: {error}")),
        ),
        Ok(metadata) if metadata.is_dir() => walk.folder(root, "", &mut Vec::new()),
        Ok(metadata) => walk.content(root, root.display().to_string(), &metadata),
    }
    walk.listing
}

/// Device and inode of a directory, links followed.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    Ok((metadata.dev(), metadata.ino()))
}

struct Walk {
    bounds: Bounds,
    listing: Listing,
    bytes: usize,
    full: bool,
}

impl Walk {
    fn gap(&mut self, path: &str, unseen: Option<String>, message: String) {
        let object = ObjectRef {
            kind: "File".to_owned(),
            name: path.to_owned(),
            ..ObjectRef::default()
        };
        let remedy = match &unseen {
            Some(all) if all.is_empty() && path == "." => {
                "name a directory that holds `fleet/` and `clusters/`; what a running gateway read before keeps serving"
            }
            Some(_) => "mend it; what was read before keeps serving until then",
            None => "delete the link",
        };
        let problem = Problem::error(&object, "content", message, remedy);
        self.listing.gaps.push(Gap { unseen, problem });
    }

    fn unseen(&mut self, path: &str, message: String) {
        self.gap(path, Some(format!("{path}/")), message);
    }

    /// Manifests beside the folders are listed without content, so that someone is told they are misplaced.
    fn top(&mut self, root: &Path) {
        let Ok(entries) = fs::read_dir(root) else {
            return;
        };
        for entry in entries.flatten().take(self.bounds.files) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_manifest(&name) && fs::metadata(entry.path()).is_ok_and(|it| it.is_file()) {
                self.listing.files.push(File {
                    path: name,
                    content: Ok(Arc::default()),
                });
            }
        }
    }

    fn folder(&mut self, folder: &Path, path: &str, above: &mut Vec<(u64, u64)>) {
        let identity = match identity(folder) {
            Ok(identity) => identity,
            Err(error) => return self.unseen(path, format!("the folder cannot be read: {error}")),
        };
        if above.contains(&identity) {
            return self.gap(
                path,
                None,
                "the link leads back to a folder above it".to_owned(),
            );
        }
        if above.len() > self.bounds.depth {
            return self.unseen(
                path,
                format!("folders are nested more than {} deep", self.bounds.depth),
            );
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.unseen(path, format!("the folder cannot be read: {error}")),
        };
        above.push(identity);
        for entry in entries {
            if self.full {
                break;
            }
            match entry {
                Ok(entry) => self.entry(
                    &entry.path(),
                    path,
                    &entry.file_name().to_string_lossy(),
                    above,
                ),
                Err(error) => self.unseen(path, format!("the folder cannot be read: {error}")),
            }
        }
        above.pop();
    }

    fn entry(&mut self, at: &Path, parent: &str, name: &str, above: &mut Vec<(u64, u64)>) {
        if hidden(name) {
            return;
        }
        let path = if parent.is_empty() {
            name.to_owned()
        } else {
            format!("{parent}/{name}")
        };
        match fs::metadata(at) {
            // Gone since the folder was listed, or a link to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_manifest(name) && fs::symlink_metadata(at).is_ok() {
                    self.file(path, Err("the link leads to nothing".to_owned()));
                }
            }
            Err(error) => self.file(path, Err(format!("cannot be read: {error}"))),
            Ok(metadata) if metadata.is_dir() => {
                if parent == "clusters" {
                    self.listing.clusters.push(name.to_owned());
                }
                self.folder(at, &path, above);
            }
            Ok(_) if !is_manifest(name) => {}
            Ok(metadata) => self.content(at, path, &metadata),
        }
    }

    fn content(&mut self, at: &Path, path: String, metadata: &fs::Metadata) {
        let content = if !metadata.is_file() {
            Err("is neither a file nor a folder".to_owned())
        } else if metadata.len() > self.bounds.file_bytes as u64 {
            Err(too_large(metadata.len(), self.bounds.file_bytes))
        } else {
            match read(at, self.bounds.file_bytes) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => Err(format!("cannot be read: {error}")),
                Ok(content) => Ok(content.into()),
            }
        };
        self.file(path, content);
    }

    fn file(&mut self, path: String, content: Result<Arc<[u8]>, String>) {
        self.bytes += content.as_ref().map_or(0, |content| content.len());
        if self.listing.files.len() >= self.bounds.files || self.bytes > self.bounds.total_bytes {
            self.full = true;
            let Bounds {
                files, total_bytes, ..
            } = self.bounds;
            let message = format!(
                "the directory holds more than {files} files or {} MiB",
                total_bytes >> 20
            );
            return self.gap(&path, Some(String::new()), message);
        }
        self.listing.files.push(File { path, content });
    }
}

fn too_large(bytes: u64, most: usize) -> String {
    format!("the file has {bytes} bytes, more than the {most} that are read")
}

/// Reads at most `most` bytes, also from a file that grows meanwhile. `O_NONBLOCK` so that a pipe that took the file's
/// place cannot hold us.
fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    let mut content = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut content)?;
    if content.len() > most {
        return Err(io::Error::other(too_large(content.len() as u64, most)));
    }
    Ok(content)
}

/// Dot files (also the `..data` of a ConfigMap), and what editors leave while they save.
fn hidden(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~')
}

fn is_manifest(name: &str) -> bool {
    !hidden(name)
        && name
            .rsplit_once('.')
            .is_some_and(|(_, extension)| matches!(extension, "yaml" | "yml" | "json"))
}
