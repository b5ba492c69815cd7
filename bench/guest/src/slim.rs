//! A program without what only debuggers read. A build with symbols is many times the size of what the
//! kernel loads of it, and in a guest every byte of it is unpacked by an emulated CPU and stays in memory.
//! The kernel goes by the segments alone (load_elf_binary in fs/binfmt_elf.c): what lies behind the last one,
//! and the table of sections, can go.

/// Fields of a 64-bit ELF header (elf(5)).
const SEGMENTS_AT: usize = 0x20;
const SECTIONS_AT: usize = 0x28;
const SEGMENT_SIZE: usize = 0x36;
const SEGMENT_COUNT: usize = 0x38;
const SECTION_COUNT: usize = 0x3c;
const HEADER: usize = 0x40;
/// And of a segment's.
const OFFSET: usize = 0x08;
const FILE_SIZE: usize = 0x20;

/// The 64-bit little-endian programs of x86_64.
const ELF64_LE: &[u8] = b"\x7fELF\x02\x01";

/// The part of a program that is loaded; a file that is something else stays as it is.
pub(crate) fn loaded_part(mut program: Vec<u8>) -> Vec<u8> {
    let Some(end) = end_of_segments(&program).filter(|&end| end < program.len()) else {
        return program;
    };
    program.truncate(end);
    program[SECTIONS_AT..SECTIONS_AT + 8].fill(0);
    // Their number, and which of them holds the names.
    program[SECTION_COUNT..SECTION_COUNT + 4].fill(0);
    program
}

fn end_of_segments(program: &[u8]) -> Option<usize> {
    if !program.starts_with(ELF64_LE) {
        return None;
    }
    let long = |at: usize| {
        let bytes = program.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let short = |at: usize| {
        let bytes = program.get(at..at + 2)?;
        Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?)))
    };
    let (table, size, count) = (
        long(SEGMENTS_AT)?,
        short(SEGMENT_SIZE)?,
        short(SEGMENT_COUNT)?,
    );
    let mut end = HEADER.max(table.checked_add(size * count)?);
    for segment in 0..count {
        let at = table + segment * size;
        end = end.max(long(at + OFFSET)?.checked_add(long(at + FILE_SIZE)?)?);
    }
    (end <= program.len() && count > 0).then_some(end)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_runs_without_its_symbols() {
        let me = fs::read(std::env::current_exe().expect("exe")).expect("read");
        let slim = loaded_part(me.clone());
        assert!(slim.len() < me.len(), "test programs have symbols");
        assert_eq!(loaded_part(slim.clone()), slim);
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("slim");
        fs::write(&path, slim).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        let output = Command::new(&path).arg("--list").output().expect("run");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("a_program_runs_without"));
    }

    #[test]
    fn what_is_no_such_program_stays_as_it_is() {
        for bytes in [b"#!/bin/sh\n".to_vec(), Vec::new(), ELF64_LE.to_vec(), {
            let mut torn = [ELF64_LE, &[0xff; 0x3a]].concat();
            torn.extend([0; 200]);
            torn
        }] {
            assert_eq!(loaded_part(bytes.clone()), bytes);
        }
    }
}
