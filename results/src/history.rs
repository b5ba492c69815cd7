//! A directory of finished runs, one directory each, named after the time they began. A run is there whole or not
//! at all: it is written beside its place and comes into it by one rename, whoever dies when, and however many write
//! at a time. After that nobody changes it.
//!
//! ```text
//! punchbench-history/
//!   2026-11-21T231500Z/  records.jsonl  run.json  table.md  seal.json
//!   2026-11-22T231500Z/  …
//!   .new-Ab3xQ9/         being written, or left by a writer that died: never read, swept when old
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::journal::{self, JournalError, io_error};
use crate::run_info::RunInfo;
use crate::{Record, Source, SourceError};

/// What is being written begins so, and is invisible.
const NEW: &str = ".new-";

/// What is being removed begins so.
const OLD: &str = ".old-";

/// No writer takes so long: what is older was left by a dead one.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Runs by one name: more begin in no second.
const NAMES_MAX: u32 = 1_000;

/// Tells that a run is whole, and what it holds.
const SEAL_FILE: &str = "seal.json";

/// Version of the seal; raised when a field changes meaning.
const SEAL_SCHEMA: u32 = 1;

/// Why a history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file in it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A run in it, or one to be added.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Somebody was faster, or the name was taken on purpose.
    #[error("{path} is there already; nothing was overwritten: choose another place")]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// Nothing to keep.
    #[error("{path} has no records: an empty run is not kept")]
    Empty {
        /// The run.
        path: PathBuf,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    seal_schema: u32,
    records: usize,
    /// Of records.jsonl.
    crc32: u32,
}

/// A directory of runs.
#[derive(Debug, Clone)]
pub struct History {
    dir: PathBuf,
}

/// A run that was put in place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name: when it began, `2026-11-22T231500Z`, and `-2` for a second one.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

/// How many runs stay. What several rules keep is kept once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest.
    pub last: usize,
    /// The first of each of the newest months.
    pub monthly: usize,
}

impl History {
    /// The history in `dir`, which need not exist yet.
    pub fn at(dir: &Path) -> History {
        History {
            dir: dir.to_owned(),
        }
    }

    /// Its runs, oldest first.
    pub fn entries(&self) -> Result<Vec<Entry>, HistoryError> {
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error("read", &self.dir, e).into()),
        };
        let mut entries = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|e| io_error("read", &self.dir, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if !name.starts_with('.') && path.join(SEAL_FILE).is_file() {
                entries.push(Entry { name, path });
            }
        }
        entries.sort_by_key(|e| age_key(&e.name));
        Ok(entries)
    }

    /// Copies a finished run into the history; the original stays as it is.
    pub fn add(&self, run: &Path) -> Result<Entry, HistoryError> {
        let source = Source::read(run)?;
        let tables = ["table.md"].map(|name| (name, run.join(name)));
        let info = RunInfo::read(run)?;
        let (name, path) = self.put(&source.records, run, |dir| {
            fill(dir, &source.records, info.as_ref())?;
            for (name, path) in &tables {
                if let Ok(text) = fs::read(path) {
                    write_whole(dir, name, &text)?;
                }
            }
            Ok(())
        })?;
        Ok(Entry { name, path })
    }

    /// Puts records into the history as one run.
    pub fn add_records(
        &self,
        records: &[Record],
        info: Option<&RunInfo>,
    ) -> Result<Entry, HistoryError> {
        let (name, path) = self.put(records, &self.dir, |dir| fill(dir, records, info))?;
        Ok(Entry { name, path })
    }

    fn put(
        &self,
        records: &[Record],
        from: &Path,
        fill: impl Fn(&Path) -> Result<(), HistoryError>,
    ) -> Result<(String, PathBuf), HistoryError> {
        let began = records.iter().map(|r| r.started).reduce(f64::min);
        let began = began.ok_or_else(|| HistoryError::Empty { path: from.into() })?;
        self.sweep()?;
        let base = time_name(began);
        for n in 1..=NAMES_MAX {
            let name = if n == 1 {
                base.clone()
            } else {
                format!("{base}-{n}")
            };
            let path = self.dir.join(&name);
            match put_new(&path, &fill) {
                Err(HistoryError::Exists { .. }) => {}
                Ok(()) => return Ok((name, path)),
                Err(e) => return Err(e),
            }
        }
        Err(HistoryError::Exists {
            path: self.dir.join(base),
        })
    }

    /// A run's results, held against its seal.
    pub fn read(&self, entry: &Entry) -> Result<Source, HistoryError> {
        let mut source = Source::read(&entry.path)?;
        source.name.clone_from(&entry.name);
        let (seal_path, path) = (
            entry.path.join(SEAL_FILE),
            entry.path.join(journal::FILE_NAME),
        );
        let text = fs::read(&seal_path).map_err(|e| io_error("read", &seal_path, e))?;
        let content = fs::read(&path).map_err(|e| io_error("read", &path, e))?;
        match serde_json::from_slice::<Seal>(&text) {
            Ok(seal) if seal.crc32 == crc32fast::hash(&content) => {}
            _ => source.problems.push(format!(
                "{}: not what was put there (see {SEAL_FILE}): somebody changed it, or the disk did",
                entry.path.display()
            )),
        }
        Ok(source)
    }

    /// Removes the runs that no rule keeps; returns their names.
    pub fn prune(&self, keep: Retention) -> Result<Vec<String>, HistoryError> {
        let entries = self.entries()?;
        let kept = keep.kept(&entries);
        let mut removed = Vec::new();
        for entry in entries.into_iter().filter(|e| !kept.contains(&e.name)) {
            // Out of sight at once, so that no reader finds half of it.
            let hidden = self.dir.join(format!("{OLD}{}", entry.name));
            match fs::rename(&entry.path, &hidden) {
                // Another prune was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| io_error("rename", &entry.path, e))?,
            }
            remove(&hidden)?;
            removed.push(entry.name);
        }
        Ok(removed)
    }

    /// Removes what dead writers left.
    fn sweep(&self) -> Result<(), HistoryError> {
        let Ok(listing) = fs::read_dir(&self.dir) else {
            return Ok(());
        };
        for entry in listing.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let modified = entry.metadata().and_then(|m| m.modified());
            let age = modified
                .ok()
                .and_then(|t| SystemTime::now().duration_since(t).ok());
            let abandoned = name.starts_with(NEW) && age.is_some_and(|age| age > ABANDONED);
            if abandoned || name.starts_with(OLD) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl Retention {
    fn kept(self, entries: &[Entry]) -> Vec<String> {
        let mut kept: Vec<String> = entries
            .iter()
            .rev()
            .take(self.last)
            .map(|e| e.name.clone())
            .collect();
        // `2026-11`: the first run of each month.
        let month = |e: &Entry| e.name.get(..7).unwrap_or_default().to_owned();
        let mut firsts: Vec<(String, String)> = Vec::new();
        for entry in entries {
            if firsts.last().is_none_or(|(m, _)| *m != month(entry)) {
                firsts.push((month(entry), entry.name.clone()));
            }
        }
        kept.extend(
            firsts
                .into_iter()
                .rev()
                .take(self.monthly)
                .map(|(_, name)| name),
        );
        kept
    }
}

/// Makes a directory with what `fill` puts into it, in place whole or not at all.
pub(crate) fn put_new(
    place: &Path,
    fill: impl FnOnce(&Path) -> Result<(), HistoryError>,
) -> Result<(), HistoryError> {
    let parent = match place.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|e| io_error("create", parent, e))?;
    if fs::symlink_metadata(place).is_ok() {
        return Err(HistoryError::Exists { path: place.into() });
    }
    let new = tempfile::Builder::new()
        .prefix(NEW)
        .tempdir_in(parent)
        .map_err(|e| io_error("create a directory in", parent, e))?;
    fill(new.path())?;
    sync(new.path())?;
    // rename(2) takes the place of an empty directory, at most, and a finished run is never empty.
    match fs::rename(new.path(), place) {
        Ok(()) => {
            // It has another name now.
            let _ = new.keep();
            sync(parent)
        }
        Err(e) if place.exists() || e.kind() == io::ErrorKind::DirectoryNotEmpty => {
            Err(HistoryError::Exists { path: place.into() })
        }
        Err(e) => Err(io_error("rename into place", place, e).into()),
    }
}

/// Writes a run's files into `dir`, sealed.
pub(crate) fn fill(
    dir: &Path,
    records: &[Record],
    info: Option<&RunInfo>,
) -> Result<(), HistoryError> {
    let path = dir.join(journal::FILE_NAME);
    let failed = |e| io_error("write", &path, e);
    let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
    let mut hasher = crc32fast::Hasher::new();
    for record in records {
        let mut line = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        hasher.update(&line);
        file.write_all(&line).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    if let Some(info) = info {
        info.write(dir)?;
    }
    let seal = Seal {
        seal_schema: SEAL_SCHEMA,
        records: records.len(),
        crc32: hasher.finalize(),
    };
    // Numbers only: nothing in it can fail to serialise.
    let text = serde_json::to_vec(&seal).expect("a seal is plain data");
    Ok(write_whole(dir, SEAL_FILE, &text)?)
}

/// Writes a file of `dir` so that a reader finds the old one or the new one, never half of it.
pub(crate) fn write_whole(dir: &Path, name: &str, content: &[u8]) -> Result<(), JournalError> {
    let path = dir.join(name);
    let failed = |e| io_error("write", &path, e);
    let mut file = tempfile::Builder::new()
        .prefix(NEW)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn sync(dir: &Path) -> Result<(), HistoryError> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    Ok(synced.map_err(|e| io_error("sync", dir, e))?)
}

/// Another sweeper may be at it, too.
fn remove(dir: &Path) -> Result<(), HistoryError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir, e).into()),
        _ => Ok(()),
    }
}

/// `…Z` before `…Z-2` before `…Z-10`.
fn age_key(name: &str) -> (String, u32) {
    match name
        .rsplit_once("Z-")
        .and_then(|(time, n)| Some((time, n.parse().ok()?)))
    {
        Some((time, n)) => (format!("{time}Z"), n),
        None => (name.to_owned(), 1),
    }
}

/// Seconds since the epoch as `2026-11-22T231500Z`.
pub fn time_name(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (year, month, day) = crate::text::date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}{minute:02}{second:02}Z")
}
