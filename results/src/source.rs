//! What compare, report, export and merge read: a record file, a run's directory, or a committed table.
//!
//! Reading never changes anything. A file that is bad in places is used as far as it is good, and what is bad is
//! told; only where nothing is good is there an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::journal::{self, JournalError, Salvaged, io_error, salvage_records};
use crate::table::Cell;
use crate::table_file::{TableError, parse_table};
use crate::{Record, Verdict};

/// Longest table read: the largest committed one has some hundred kilobytes.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// Results of one run, from wherever.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path as it was given.
    pub name: String,
    /// The records; none if it is a table.
    pub records: Vec<Record>,
    /// Repeats combined.
    pub cells: Vec<Cell>,
    /// What a reader must be told before anything is concluded: bad lines, no records, several kernels.
    pub problems: Vec<String>,
}

/// Why there is nothing to use.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read, or is none of ours.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A directory without a run in it.
    #[error(
        "{path} holds no {}: give a run's directory, a record file or a table that punchbench wrote (.md)",
        journal::FILE_NAME
    )]
    NoRun {
        /// The directory.
        path: PathBuf,
    },
    /// No line of the file is a record.
    #[error("nothing in {path} can be used: {first}")]
    AllBad {
        /// The file.
        path: PathBuf,
        /// The first problem.
        first: String,
    },
}

impl Source {
    /// Reads `path`: a directory with a journal, a `.md` table, or a record file.
    pub fn read(path: &Path) -> Result<Source, SourceError> {
        let name = path.display().to_string();
        let meta = fs::metadata(path).map_err(|e| io_error("open", path, e))?;
        if !meta.is_dir() && path.extension().is_some_and(|e| e == "md") {
            return Source::of_table(name, path, meta.len());
        }
        let file = if meta.is_dir() {
            path.join(journal::FILE_NAME)
        } else {
            path.to_owned()
        };
        if meta.is_dir() && !file.exists() {
            return Err(SourceError::NoRun { path: path.into() });
        }
        let salvaged = salvage_records(&file)?;
        match salvaged.problems.first() {
            Some(first) if salvaged.records.is_empty() => Err(SourceError::AllBad {
                path: file,
                first: first.clone(),
            }),
            _ => Ok(Source::of_records(name, salvaged)),
        }
    }

    /// Reads several, each in a thread of its own, a few at a time.
    pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Source>, SourceError> {
        in_parallel(paths, |path| Source::read(path))
            .into_iter()
            .collect()
    }

    fn of_records(name: String, salvaged: Salvaged) -> Source {
        let mut problems = salvaged.problems;
        let good = salvaged.records.len();
        if salvaged.bad_lines > 0 {
            let bad = crate::text::count(salvaged.bad_lines, "line");
            problems.push(format!(
                "{name}: {bad} left out, {} used; the file is untouched",
                crate::text::count(good, "record")
            ));
        }
        let mut source = Source {
            cells: Cell::group(&salvaged.records),
            records: salvaged.records,
            name,
            problems,
        };
        source.note_what_is_odd();
        source
    }

    fn of_table(name: String, path: &Path, bytes: u64) -> Result<Source, SourceError> {
        if bytes > TABLE_BYTES_MAX {
            return Err(TableError::TooLong { path: path.into() }.into());
        }
        let text = fs::read_to_string(path).map_err(|e| io_error("read", path, e))?;
        let cells = parse_table(path, &text)?;
        let mut source = Source {
            name,
            records: Vec::new(),
            cells,
            problems: Vec::new(),
        };
        source.note_what_is_odd();
        Ok(source)
    }

    fn note_what_is_odd(&mut self) {
        if self.cells.is_empty() {
            self.problems
                .push(format!("{}: an empty run, without one record", self.name));
        } else if !self.cells.iter().any(|c| c.verdict().was_exercised()) {
            self.problems
                .push(format!("{}: no race was exercised in it", self.name));
        }
        // One kernel by name that turns out to be two: somebody updated it in the middle.
        let names: BTreeSet<Option<&str>> = self
            .cells
            .iter()
            .map(|c| c.kernel_name.as_deref())
            .collect();
        for kernel_name in names {
            let of_it = self.cells.iter().filter(|c| {
                c.kernel_name.as_deref() == kernel_name && c.verdict() != Verdict::Error
            });
            let releases: BTreeSet<&str> = of_it.map(|c| c.kernel.as_str()).collect();
            if releases.len() > 1 && !self.records.is_empty() {
                let releases: Vec<&str> = releases.into_iter().collect();
                self.problems.push(format!(
                    "{}: records of several kernels for {}: {}",
                    self.name,
                    kernel_name.unwrap_or("this machine"),
                    releases.join(", ")
                ));
            }
        }
    }
}

/// `work` on each item, in as many threads as there are CPUs; results in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let share = items.len().div_ceil(threads).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let shares = items.chunks(share);
        let running: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<R>>()))
            .collect();
        let done = running.into_iter();
        done.flat_map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .collect()
    })
}
