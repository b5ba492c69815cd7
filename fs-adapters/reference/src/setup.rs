//! What is raced: files of a few pages, and actors with what they do. Independent of any policy.

use std::ops::Range;

/// A set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Its name: a scenario's, or a hazard's.
    pub name: String,
    /// The files, in the order of their inodes' addresses.
    pub files: Vec<SetupFile>,
    /// The actors.
    pub actors: Vec<SetupActor>,
    /// The files are mapped without a page cache (DAX).
    pub dax: bool,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupFile {
    /// Its name, short: it stands in every line of a diagram.
    pub name: String,
    /// i_size, in pages, each with a block of its own.
    pub size: usize,
    /// Room to grow, in pages.
    pub room: usize,
    /// Its pages are in the page cache at first.
    pub cached: bool,
    /// It holds what this file holds.
    pub same_as: Option<usize>,
}

/// An actor: a process of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupActor {
    /// Its name.
    pub name: String,
    /// What it does, in order.
    pub calls: Vec<Call>,
    /// It repeats that until this actor has ended. The explorer needs it for livelocks only: whatever else a
    /// second time could show is seen in the states after the first.
    pub until: Option<usize>,
}

/// Pages of a file, by index.
pub type Pages = Range<usize>;

/// One call. `file` and `pages` are what it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the same everywhere")]
pub enum Call {
    /// read(2): with `readahead` by page_cache_sync_readahead(), else folio by folio.
    Read {
        file: usize,
        pages: Pages,
        nowait: bool,
        readahead: bool,
    },
    /// read(2) of one page into the actor's mapping of another.
    ReadInto {
        file: usize,
        page: usize,
        from: usize,
        from_page: usize,
    },
    /// Loads through the actor's mapping; with `around`, map_pages() is tried first.
    Fault {
        file: usize,
        pages: Pages,
        around: bool,
    },
    /// posix_fadvise(WILLNEED), readahead(2), madvise(WILLNEED): the I/O goes on after it has returned.
    Fadvise {
        file: usize,
        pages: Pages,
    },
    /// madvise(MADV_COLLAPSE) or khugepaged: `collapse_file`, up to where it would copy.
    CollapseFile {
        file: usize,
        pages: Pages,
    },
    /// A load through a mapping of a DAX file, pinned meanwhile as a device would.
    DaxFault {
        file: usize,
        page: usize,
    },
    /// An O_DIRECT read.
    DirectRead {
        file: usize,
        pages: Pages,
    },
    /// A store of a word.
    Store {
        file: usize,
        page: usize,
    },
    /// A write(2) of part of a page.
    Write {
        file: usize,
        page: usize,
    },
    /// An O_DIRECT write of whole pages.
    DirectWrite {
        file: usize,
        pages: Pages,
    },
    /// fsync(2), or the flusher.
    Sync {
        file: usize,
    },
    PunchHole {
        file: usize,
        pages: Pages,
    },
    ZeroRange {
        file: usize,
        pages: Pages,
    },
    CollapseRange {
        file: usize,
        pages: Pages,
    },
    InsertRange {
        file: usize,
        pages: Pages,
    },
    /// ftruncate(2) to so many pages, fewer or more.
    Truncate {
        file: usize,
        size: usize,
    },
    /// A write at the end of the file that fails after it has allocated.
    FailedWrite {
        file: usize,
        page: usize,
    },
    /// FICLONERANGE into `file`.
    CloneRange {
        file: usize,
        pages: Pages,
        from: usize,
    },
    /// FIDEDUPERANGE out of `file`.
    Dedupe {
        file: usize,
        pages: Pages,
        into: usize,
        into_page: usize,
    },
    ExchangeRange {
        file: usize,
        pages: Pages,
        with: usize,
    },
    SwapBoot {
        file: usize,
        with: usize,
    },
    JournalData {
        file: usize,
    },
    /// Allocates the lowest free block for a page of `file` and writes to it; nothing if none is free.
    Reuse {
        file: usize,
        page: usize,
    },
}

impl SetupFile {
    /// A file of so many pages, none of them cached.
    pub fn cold(name: &str, size: usize) -> SetupFile {
        SetupFile {
            name: name.to_owned(),
            size,
            room: size,
            cached: false,
            same_as: None,
        }
    }

    /// An empty file with room for so many pages.
    pub fn empty(name: &str, room: usize) -> SetupFile {
        SetupFile {
            size: 0,
            room,
            ..SetupFile::cold(name, 0)
        }
    }

    /// With its pages in the page cache.
    pub fn cached(self) -> SetupFile {
        SetupFile {
            cached: true,
            ..self
        }
    }
}

impl SetupActor {
    /// An actor that does this once.
    pub fn new(name: &str, calls: Vec<Call>) -> SetupActor {
        SetupActor {
            name: name.to_owned(),
            calls,
            until: None,
        }
    }
}

impl Call {
    /// Whether pages become dirty by it.
    pub fn dirties(&self) -> bool {
        matches!(
            self,
            Call::Store { .. }
                | Call::Write { .. }
                | Call::ReadInto { .. }
                | Call::FailedWrite { .. }
        )
    }

    /// Whether it is about blocks or their place in files, so that it needs a block map.
    pub fn moves_blocks(&self) -> bool {
        match self {
            Call::ZeroRange { .. }
            | Call::CollapseRange { .. }
            | Call::InsertRange { .. }
            | Call::FailedWrite { .. }
            | Call::CloneRange { .. }
            | Call::Dedupe { .. }
            | Call::ExchangeRange { .. }
            | Call::SwapBoot { .. }
            | Call::JournalData { .. }
            | Call::DirectWrite { .. }
            | Call::DaxFault { .. }
            | Call::Reuse { .. } => true,
            Call::Read { .. }
            | Call::ReadInto { .. }
            | Call::Fault { .. }
            | Call::Fadvise { .. }
            | Call::CollapseFile { .. }
            | Call::DirectRead { .. }
            | Call::Store { .. }
            | Call::Write { .. }
            | Call::Sync { .. }
            | Call::PunchHole { .. }
            | Call::Truncate { .. } => false,
        }
    }

    /// What it is, in a word or two.
    pub fn word(&self) -> &'static str {
        match self {
            Call::Read { .. } | Call::ReadInto { .. } => "a read",
            Call::Fault { .. } => "a fault",
            Call::Fadvise { .. } => "advice",
            Call::CollapseFile { .. } => "madvise(MADV_COLLAPSE)",
            Call::DaxFault { .. } => "a DAX fault",
            Call::DirectRead { .. } => "a direct read",
            Call::Store { .. } => "a store",
            Call::Write { .. } | Call::FailedWrite { .. } => "a write",
            Call::DirectWrite { .. } => "a direct write",
            Call::Sync { .. } => "fsync",
            Call::PunchHole { .. } => "punch_hole",
            Call::ZeroRange { .. } => "zero_range",
            Call::CollapseRange { .. } => "collapse_range",
            Call::InsertRange { .. } => "insert_range",
            Call::Truncate { .. } => "truncate",
            Call::CloneRange { .. } => "clone_range",
            Call::Dedupe { .. } => "dedupe",
            Call::ExchangeRange { .. } => "exchange_range",
            Call::SwapBoot { .. } => "swap_boot",
            Call::JournalData { .. } => "journal_data",
            Call::Reuse { .. } => "the reuse of a block",
        }
    }

    /// Whether it may need a block that was nobody's.
    pub fn allocates(&self) -> bool {
        self.dirties() || matches!(self, Call::DirectWrite { .. })
    }
}
