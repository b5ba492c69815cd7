//! Set-ups of the model's own, beside the scenarios: each races one way of filling, dirtying or remapping
//! against one way of taking blocks away, as small as it can be and still go wrong.

use crate::setup::{Call, Setup, SetupActor, SetupFile};

/// All of them.
pub fn hazards() -> Vec<Setup> {
    let mut all = vec![
        punch_read_reuse(),
        punches(2),
        punch_with("punch-fault-reuse", vec![fault()], true),
        punch_with("punch-fadvise-reuse", vec![fadvise()], true),
        punch_with(
            "punch-map-pages",
            vec![Call::Fault {
                file: 0,
                pages: 0..1,
                around: true,
            }],
            false,
        ),
        punch_with(
            "punch-direct-read-reuse",
            vec![Call::DirectRead {
                file: 0,
                pages: 0..1,
            }],
            true,
        ),
        punch_with(
            "punch-direct-write-reuse",
            vec![Call::DirectWrite {
                file: 0,
                pages: 0..1,
            }],
            true,
        ),
        punch_with("punch-store", vec![Call::Store { file: 0, page: 0 }], false),
        punch_with("punch-write", vec![Call::Write { file: 0, page: 0 }], false),
        read_into_own_mapping(),
        dedupe_within_a_file(),
        dax_punch(),
        livelock(),
        store_writeback_punch(),
        read_beside_write(),
    ];
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// One with its name.
pub fn hazard(name: &str) -> Option<Setup> {
    hazards().into_iter().find(|h| h.name == name)
}

fn read() -> Call {
    Call::Read {
        file: 0,
        pages: 0..1,
        nowait: false,
        readahead: false,
    }
}

fn fault() -> Call {
    Call::Fault {
        file: 0,
        pages: 0..1,
        around: false,
    }
}

fn fadvise() -> Call {
    Call::Fadvise {
        file: 0,
        pages: 0..1,
    }
}

fn punch() -> Call {
    Call::PunchHole {
        file: 0,
        pages: 0..1,
    }
}

fn setup(name: &str, files: Vec<SetupFile>, actors: Vec<SetupActor>) -> Setup {
    Setup {
        name: name.into(),
        files,
        actors,
        dax: false,
    }
}

/// The race of the thread that started it all: a punch, a read, and somebody who gets the block next.
pub fn punch_read_reuse() -> Setup {
    punch_with("punch-read-reuse", vec![read()], true)
}

fn punch_with(name: &str, calls: Vec<Call>, reuse: bool) -> Setup {
    let mut files = vec![SetupFile::cold("A", 1)];
    let mut actors = vec![
        SetupActor::new("puncher", vec![punch()]),
        SetupActor::new("filler", calls),
    ];
    if reuse {
        files.push(SetupFile::empty("B", 1));
        actors.push(SetupActor::new(
            "writer",
            vec![Call::Reuse { file: 1, page: 0 }],
        ));
    }
    setup(name, files, actors)
}

/// Several punches of one page beside a read: the second one wipes out what the first one left.
pub fn punches(n: usize) -> Setup {
    let mut actors: Vec<SetupActor> = (0..n)
        .map(|i| SetupActor::new(&format!("puncher-{}", i + 1), vec![punch()]))
        .collect();
    actors.push(SetupActor::new("reader", vec![read()]));
    setup("punch-punch-read", vec![SetupFile::cold("A", 1)], actors)
}

/// A read of a file into a mapping of the same file, beside a punch: what GFS2 deadlocks on.
pub fn read_into_own_mapping() -> Setup {
    let into = Call::ReadInto {
        file: 0,
        page: 1,
        from: 0,
        from_page: 0,
    };
    let puncher = SetupActor::new(
        "puncher",
        vec![Call::PunchHole {
            file: 0,
            pages: 0..1,
        }],
    );
    let actors = vec![puncher, SetupActor::new("reader", vec![into])];
    setup(
        "read-into-own-mapping",
        vec![SetupFile::cold("A", 2)],
        actors,
    )
}

/// A dedupe of two pages of one file: its compare reads what it has locked.
pub fn dedupe_within_a_file() -> Setup {
    let dedupe = Call::Dedupe {
        file: 0,
        pages: 0..1,
        into: 0,
        into_page: 1,
    };
    setup(
        "dedupe-within-a-file",
        vec![SetupFile::cold("A", 2)],
        vec![SetupActor::new("deduper", vec![dedupe])],
    )
}

/// A load through a mapping of a DAX file, pinned by a device, beside a punch and a reuse of the block.
pub fn dax_punch() -> Setup {
    let fault = Call::DaxFault { file: 0, page: 0 };
    Setup {
        dax: true,
        ..punch_with("dax-punch-fault-reuse", vec![fault], true)
    }
}

/// A reader that goes on faulting as long as the punch runs.
pub fn livelock() -> Setup {
    let mut faulter = SetupActor::new("faulter", vec![fault()]);
    faulter.until = Some(0);
    let actors = vec![SetupActor::new("puncher", vec![punch()]), faulter];
    setup(
        "punch-endless-faults",
        vec![SetupFile::cold("A", 1).cached()],
        actors,
    )
}

/// A store, its writeback, and a punch with a reuse of the block.
pub fn store_writeback_punch() -> Setup {
    let mut setup = punch_with(
        "store-writeback-punch",
        vec![Call::Store { file: 0, page: 0 }],
        false,
    );
    setup.files.push(SetupFile::empty("B", 1));
    setup
        .actors
        .push(SetupActor::new("flusher", vec![Call::Sync { file: 0 }]));
    setup.actors.push(SetupActor::new(
        "writer",
        vec![Call::Reuse { file: 1, page: 0 }],
    ));
    setup
}

/// A punch of two pages, so many fillers, readers of the one and advisers of the other, and somebody who gets a
/// block next: a measure of the explorer, no hazard of its own.
pub fn crowd(fillers: usize) -> Setup {
    let mut actors = vec![
        SetupActor::new(
            "puncher",
            vec![Call::PunchHole {
                file: 0,
                pages: 0..2,
            }],
        ),
        SetupActor::new("writer", vec![Call::Reuse { file: 1, page: 0 }]),
    ];
    for n in 0..fillers {
        let (pages, name) = (n % 2..n % 2 + 1, format!("filler-{}", n + 1));
        let call = match n % 2 {
            0 => Call::Read {
                file: 0,
                pages,
                nowait: false,
                readahead: false,
            },
            _ => Call::Fadvise { file: 0, pages },
        };
        actors.push(SetupActor::new(&name, vec![call]));
    }
    let files = vec![SetupFile::cold("A", 2), SetupFile::empty("B", 1)];
    setup(&format!("crowd-{}", fillers + 2), files, actors)
}

/// A read of a cached page beside a write to another one: what the policy makes the reader wait for.
pub fn read_beside_write() -> Setup {
    let actors = vec![
        SetupActor::new("reader", vec![read()]),
        SetupActor::new("writer", vec![Call::Write { file: 0, page: 1 }]),
    ];
    setup(
        "read-beside-write",
        vec![SetupFile::cold("A", 2).cached()],
        actors,
    )
}
