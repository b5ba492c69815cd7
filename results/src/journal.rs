//! `records.jsonl`: the append-only file of a run, one [`Record`] a line, on disk before the next trial begins.
//!
//! A crash may cut the last line short; that line is dropped (its trial runs again) and everything
//! before it stays. Whatever else does not read as a record is somebody else's file or a newer
//! program's: the journal refuses it, names the line and leaves the file as it was.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Record, SCHEMA_VERSION};

/// The journal's file name within a run's directory.
pub const FILE_NAME: &str = "records.jsonl";

/// Longest line read or written: a record is some kilobytes, and no input may exhaust memory.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Every record begins so, because `schema` is its first field: it tells a torn line from a stranger's.
const LINE_HEAD: &[u8] = br#"{"schema":"#;

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb: `open`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something by that name is a directory, a pipe or a device.
    #[error("{path} is not a regular file; choose another --out directory")]
    NotAFile {
        /// The path in question.
        path: PathBuf,
    },
    /// Another process writes to this journal.
    #[error(
        "{path} is being written by another punchbench; wait for it, or choose another --out directory"
    )]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// A newer punchbench wrote it.
    #[error(
        "{path}, line {line}: schema version {found}, but this punchbench reads up to {SCHEMA_VERSION}; \
         use a newer punchbench (the file is untouched)"
    )]
    NewerSchema {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The version found there.
        found: u32,
    },
    /// A line that is no record.
    #[error(
        "{path}, line {line}: not a punchbench record: {detail}; move the file away or choose another --out \
         directory (the file is untouched)"
    )]
    Foreign {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        detail: String,
    },
    /// The record handed to [`Journal::append`] could not be read back, so it was not written.
    #[error(
        "the record of trial {trial} would not read back and was not written to {path}: {detail}"
    )]
    Unwritable {
        /// The journal.
        path: PathBuf,
        /// [`Record::trial`].
        trial: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// The journal of a run, locked against a second writer for as long as it is open.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Invariant: the file's length up to and including the last complete line.
    end: u64,
    note: Option<String>,
}

impl Journal {
    /// Opens `dir/records.jsonl`, creating both if need be, and returns the records already there.
    pub fn create_or_resume(dir: &Path) -> Result<(Journal, Vec<Record>), JournalError> {
        fs::create_dir_all(dir).map_err(|e| io_error("create", dir, e))?;
        let path = dir.join(FILE_NAME);
        if path.exists() {
            refuse_non_file(&path)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|e| io_error("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked { path }),
            Err(TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
        }
        let content = parse(&path, &file)?;
        let mut journal = Journal {
            file,
            path,
            end: content.end,
            note: None,
        };
        match content.tail {
            Tail::None => {}
            Tail::NoNewline => {
                journal.write_line(b"\n")?;
            }
            Tail::Torn { bytes } => {
                journal
                    .file
                    .set_len(journal.end)
                    .map_err(|e| io_error("truncate", &journal.path, e))?;
                journal.note = Some(format!(
                    "{}: cut off {bytes} bytes of an unfinished record after line {}; its trial runs again",
                    journal.path.display(),
                    content.records.len(),
                ));
            }
        }
        // A new file's name must survive a crash as well as its content.
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| io_error("sync", dir, e))?;
        Ok((journal, content.records))
    }

    /// What was repaired on opening, for the user to see.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Where the records go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one record; when this returns it is on disk.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let unwritable = |detail: String| JournalError::Unwritable {
            path: self.path.clone(),
            trial: record.trial.clone(),
            detail,
        };
        let mut line = serde_json::to_vec(record).map_err(|e| unwritable(e.to_string()))?;
        // A NaN becomes `null`, say: one bad number must not make the whole journal unreadable.
        serde_json::from_slice::<Record>(&line).map_err(|e| unwritable(e.to_string()))?;
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            return Err(unwritable(format!(
                "{} bytes, at most {LINE_BYTES_MAX} are allowed",
                line.len()
            )));
        }
        self.write_line(&line)
    }

    /// One write call, then fdatasync; a line that did not go out whole is taken back.
    fn write_line(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let written = loop {
            match self.file.write(line) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => break other,
            }
        };
        let outcome = match written {
            Ok(n) if n == line.len() => self.file.sync_data(),
            Ok(n) => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "only {n} of {} bytes went out; is the disk full?",
                    line.len()
                ),
            )),
            Err(e) => Err(e),
        };
        match outcome {
            Ok(()) => {
                self.end += line.len() as u64;
                Ok(())
            }
            Err(e) => {
                // Best effort: if it fails too, the next start cuts the torn line off.
                let _ = self.file.set_len(self.end);
                Err(io_error("append to", &self.path, e))
            }
        }
    }
}

/// Reads a journal without locking or changing it; an unfinished last line is left out.
pub fn read_records(path: &Path) -> Result<Vec<Record>, JournalError> {
    refuse_non_file(path)?;
    let file = File::open(path).map_err(|e| io_error("open", path, e))?;
    Ok(parse(path, &file)?.records)
}

/// What could be read of a journal that may be damaged, and what could not.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// The records of every good line.
    pub records: Vec<Record>,
    /// Lines that could not be read.
    pub bad_lines: usize,
    /// Why, for the first few of them, each with path and line.
    pub problems: Vec<String>,
}

/// Bad lines told one by one; the others are counted.
const PROBLEMS_TOLD_MAX: usize = 5;

/// Reads whatever is good in a journal, without locking or changing it: for those who compare and report, where
/// [`read_records`] is for those who go on writing.
///
/// # Errors
/// Only if the file cannot be opened or read at all.
pub fn salvage_records(path: &Path) -> Result<Salvaged, JournalError> {
    refuse_non_file(path)?;
    let file = File::open(path).map_err(|e| io_error("open", path, e))?;
    let mut reader = BufReader::new(&file);
    let mut salvaged = Salvaged::default();
    let mut line = Vec::new();
    for number in 1.. {
        if !next_line(path, &mut reader, &mut line)? {
            break;
        }
        let problem = if line.len() > LINE_BYTES_MAX {
            skip_line(path, &mut reader)?;
            too_long(path, number).to_string()
        } else {
            match parse_line(path, number, &line) {
                Ok(record) => {
                    salvaged.records.push(record);
                    continue;
                }
                Err(_) if line.last() != Some(&b'\n') && is_torn(&line) => format!(
                    "{}, line {number}: an unfinished record of {} bytes",
                    path.display(),
                    line.len()
                ),
                Err(e) => e.to_string(),
            }
        };
        salvaged.bad_lines += 1;
        if salvaged.problems.len() < PROBLEMS_TOLD_MAX {
            salvaged.problems.push(problem);
        }
    }
    let untold = salvaged.bad_lines - salvaged.problems.len();
    if untold > 0 {
        let more = format!("{}: {untold} more lines like these", path.display());
        salvaged.problems.push(more);
    }
    Ok(salvaged)
}

/// What a journal file holds.
struct Content {
    records: Vec<Record>,
    /// Length of the good part.
    end: u64,
    tail: Tail,
}

/// How the file ends.
enum Tail {
    /// With a complete line.
    None,
    /// With a complete record that lacks just its newline.
    NoNewline,
    /// With the beginning of a record.
    Torn { bytes: usize },
}

/// Reads the next line, its newline included, or the first `LINE_BYTES_MAX + 1` bytes of it; false at the end.
pub(crate) fn next_line(
    path: &Path,
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> Result<bool, JournalError> {
    line.clear();
    // One byte more than allowed, so that too long a line is told from the longest.
    let mut bounded = reader.by_ref().take(LINE_BYTES_MAX as u64 + 1);
    bounded
        .read_until(b'\n', line)
        .map_err(|e| io_error("read", path, e))?;
    Ok(!line.is_empty())
}

/// Goes on to the next line.
fn skip_line(path: &Path, reader: &mut impl BufRead) -> Result<(), JournalError> {
    loop {
        let part = reader.fill_buf().map_err(|e| io_error("read", path, e))?;
        let (used, done) = match part.iter().position(|&b| b == b'\n') {
            Some(at) => (at + 1, true),
            None => (part.len(), part.is_empty()),
        };
        reader.consume(used);
        if done {
            return Ok(());
        }
    }
}

fn too_long(path: &Path, line: usize) -> JournalError {
    JournalError::Foreign {
        path: path.into(),
        line,
        detail: format!("the line is longer than {LINE_BYTES_MAX} bytes"),
    }
}

fn parse(path: &Path, file: &File) -> Result<Content, JournalError> {
    let mut reader = BufReader::new(file);
    let mut content = Content {
        records: Vec::new(),
        end: 0,
        tail: Tail::None,
    };
    let mut line = Vec::new();
    while next_line(path, &mut reader, &mut line)? {
        let number = content.records.len() + 1;
        if line.len() > LINE_BYTES_MAX {
            return Err(too_long(path, number));
        }
        let complete = line.last() == Some(&b'\n');
        match parse_line(path, number, &line) {
            Ok(record) => {
                content.records.push(record);
                content.end += line.len() as u64;
                if !complete {
                    content.tail = Tail::NoNewline;
                }
            }
            Err(_) if !complete && is_torn(&line) => {
                content.tail = Tail::Torn { bytes: line.len() };
                return Ok(content);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(content)
}

fn parse_line(path: &Path, line: usize, text: &[u8]) -> Result<Record, JournalError> {
    /// The one field that every schema version has.
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
    }
    let foreign = |e: serde_json::Error| JournalError::Foreign {
        path: path.into(),
        line,
        detail: e.to_string(),
    };
    match serde_json::from_slice::<Record>(text) {
        Ok(record) if record.schema <= SCHEMA_VERSION => Ok(record),
        whatever => {
            let head: Head = serde_json::from_slice(text).map_err(foreign)?;
            if head.schema > SCHEMA_VERSION {
                return Err(JournalError::NewerSchema {
                    path: path.into(),
                    line,
                    found: head.schema,
                });
            }
            whatever.map_err(foreign)
        }
    }
}

/// True for the beginning of a record in a schema that we know, as a crash leaves it.
fn is_torn(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(LINE_HEAD) else {
        return LINE_HEAD.starts_with(line);
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let version: Option<u32> = std::str::from_utf8(&rest[..digits])
        .ok()
        .and_then(|d| d.parse().ok());
    let known = version.is_some_and(|v| v <= SCHEMA_VERSION) || rest.is_empty();
    // A whole JSON value is not torn, whatever it is.
    known && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err()
}

fn refuse_non_file(path: &Path) -> Result<(), JournalError> {
    let kind = fs::metadata(path).map_err(|e| io_error("open", path, e))?;
    if kind.is_file() {
        Ok(())
    } else {
        Err(JournalError::NotAFile { path: path.into() })
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        action,
        path: path.into(),
        source,
    }
}
