//! What brings pages in, and what it brings in.

use super::*;

fn read(at: u64, len: u64, readahead: bool) -> Call {
    Call::Read {
        file: VICTIM,
        at,
        len,
        nowait: false,
        direct: false,
        readahead,
    }
}

#[test]
fn a_read_with_readahead_brings_in_what_follows_and_one_without_does_not() {
    let op = Op::Read(ReadArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        nowait: false,
        direct: false,
        readahead: true,
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |_, files| {
            let mut buf = vec![0; PAGE as usize];
            for (readahead, follows) in [(false, false), (true, true)] {
                files.evict(VICTIM);
                assert_eq!(
                    files.perform(read(0, PAGE, readahead), &mut buf),
                    bytes(PAGE)
                );
                assert_eq!(buf, expected(0, PAGE));
                let pages = files.resident(VICTIM, 0, SIZE);
                assert_eq!(pages > 1, follows, "{target}: {pages} pages");
            }
        });
    }
}

#[test]
fn an_io_uring_read_shows_what_is_there_and_fills() {
    let op = Op::UringRead(UringReadArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        nowait: false,
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            if let Err(why) = mounted.capability(Capability::IoUring) {
                println!("left out: {why}");
                return;
            }
            let (file, at, len) = (VICTIM, 3 * PAGE + 10, 2 * PAGE);
            files.evict(VICTIM);
            let mut buf = vec![0; len as usize];
            let read = |at, nowait| Call::UringRead {
                file,
                at,
                len,
                nowait,
            };
            let before = files.actor.usage().inblock;
            for _ in 0..3 {
                assert_eq!(files.perform(read(at, false), &mut buf), bytes(len));
                assert_eq!(buf, expected(at, len));
            }
            assert_eq!(files.resident(VICTIM, 3 * PAGE, 3 * PAGE), 3, "{target}");
            assert!(files.actor.usage().inblock > before, "{target}");
            assert_eq!(files.perform(read(SIZE - 5, false), &mut buf), bytes(5));
            // What is cached needs no wait.
            buf.fill(0);
            assert_eq!(files.perform(read(at, true), &mut buf), bytes(len));
            assert_eq!(buf, expected(at, len));
        });
    }
}

fn splice(at: u64, len: u64) -> (Call, Call) {
    let file = VICTIM;
    let late = true;
    let splice = Call::Splice {
        file,
        at,
        len,
        late,
    };
    (splice, Call::Drain { file, at, len })
}

fn splices() -> Op {
    Op::Splice(SpliceArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        late: true,
    })
}

#[test]
fn what_was_spliced_before_a_punch_is_drained_after_it() {
    for target in DISKS {
        on_mount(target, &[splices()], |_, files| {
            let (at, len) = (4 * PAGE, 3 * PAGE);
            let (splice, drain) = splice(at, len);
            let mut buf = vec![0; len as usize];
            files.evict(VICTIM);
            assert_eq!(files.perform(splice, &mut []), bytes(len));
            assert_eq!(files.resident(VICTIM, at, len), 3, "{target}");
            let file = VICTIM;
            assert_eq!(
                files.perform(Call::PunchHole { file, at, len }, &mut []),
                bytes(0)
            );
            assert_eq!(files.perform(drain, &mut buf), bytes(len));
            assert!(
                buf == expected(at, len),
                "{target}: the pipe holds the old pages"
            );
            assert_eq!(files.read(VICTIM, at, len), vec![0; len as usize]);
            // It is empty now.
            assert_eq!(files.perform(drain, &mut buf), bytes(0));
        });
    }
}

#[test]
fn a_pipe_never_shows_an_earlier_splice_and_a_full_one_ends_it_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = raced(dir.path(), &[splices()]);
    let (first, _) = splice(0, 2 * PAGE);
    let (second, drain) = splice(7 * PAGE, PAGE);
    let mut buf = vec![0; 2 * PAGE as usize];
    assert_eq!(files.perform(first, &mut []), bytes(2 * PAGE));
    assert_eq!(files.perform(second, &mut []), bytes(PAGE));
    assert_eq!(files.perform(drain, &mut buf), bytes(PAGE));
    assert_eq!(buf[..PAGE as usize], expected(7 * PAGE, PAGE));
    // A drain into less than there is leaves nothing behind.
    assert_eq!(files.perform(first, &mut []), bytes(2 * PAGE));
    assert_eq!(files.perform(drain, &mut buf), bytes(PAGE));
    assert_eq!(files.perform(drain, &mut buf), bytes(0));
    // Nobody drains while it splices, so more than the pipe takes must not wait.
    let long = 4 << 20;
    files.stage.prepare(VICTIM, long, &mut pattern).unwrap();
    let (splice, drain) = splice(0, long);
    let spliced = files.perform(splice, &mut []);
    assert!((PAGE..long).contains(&spliced.bytes), "{spliced:?}");
    let mut buf = vec![0; long as usize];
    assert_eq!(files.perform(drain, &mut buf), spliced);
    let seen = spliced.bytes as usize;
    assert!(buf[..seen] == expected(0, spliced.bytes));
}

#[test]
fn fiemap_counts_extents_and_fills_no_page() {
    for target in DISKS {
        on_mount(target, &[], |_, files| {
            let (file, at, len) = (VICTIM, 0, SIZE);
            let fiemap = Call::Fiemap { file, at, len };
            files.evict(VICTIM);
            let whole = files.perform(fiemap, &mut []);
            assert!(whole.bytes > 0 && whole.errno == 0, "{target}: {whole:?}");
            assert_eq!(files.resident(VICTIM, 0, SIZE), 0);
            let (at, len) = (16 * PAGE, 16 * PAGE);
            files.perform(Call::PunchHole { file, at, len }, &mut []);
            assert_eq!(
                files.perform(fiemap, &mut []).bytes,
                whole.bytes + 1,
                "{target}"
            );
        });
    }
}
