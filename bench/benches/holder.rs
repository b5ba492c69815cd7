//! What it costs to have a server between the loop device and its image while nothing is held: direct reads of the
//! device, 4 KiB at random places and 1 MiB one after the other, beside a plain loop device over the same kind of
//! image. Both in turn, five times; medians. The staged scenarios need at least half of the plain device.
//!
//! `cargo bench -p punchbench --bench holder` as root. Not root: says so and measures nothing.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::libc;
use punchbench_fs::hold::{ImageServer, SERVE_IMAGE, serve};
use punchbench_fs::{Privilege, Tag};
use punchbench_sys::io::AlignedBuf;
use punchbench_sys::loopdev::LoopDevice;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const TIMES: usize = 5;
const READING: Duration = Duration::from_secs(1);
const SIZE: u64 = 256 << 20;
const SMALL: usize = 4096;
const LARGE: usize = 1 << 20;

/// Readers side by side, as many as a staged scenario has actors or so.
const READERS: u64 = 4;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(SERVE_IMAGE) {
        return match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if Privilege::current() != Privilege::Root {
        println!("not measured: a loop device needs root");
        return ExitCode::SUCCESS;
    }
    punchbench_sys::mount::enter_private_namespace().expect("a mount namespace of our own");
    let dir = tempfile::tempdir().expect("a directory");
    let tag = Tag::of_this_process();
    let plain_image = image();
    let plain = LoopDevice::attach_to_new(&plain_image, &tag.to_string(), false, dir.path())
        .expect("a loop device");
    let served_image = image();
    let (_server, file) =
        ImageServer::start(&served_image, &tag, dir.path()).expect("a server of an image");
    let served = LoopDevice::attach_to_new(&file, &tag.to_string(), true, dir.path())
        .expect("a loop device");
    drop(file);

    println!("| reads | readers | plain, MiB/s | served, MiB/s | ratio |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, readers, read) in [
        ("4 KiB, random", 1, random as fn(&Path, u64) -> u64),
        ("4 KiB, random", READERS, random),
        ("1 MiB, sequential", 1, sequential),
    ] {
        let (mut bare, mut held) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            bare.push(rate(plain.path(), readers, read));
            held.push(rate(served.path(), readers, read));
        }
        let (bare, held) = (median(bare), median(held));
        println!(
            "| {name} | {readers} | {bare:.1} | {held:.1} | {:.2} |",
            held / bare
        );
    }
    ExitCode::SUCCESS
}

/// An image in memory with a byte of its own on each page.
fn image() -> File {
    let image = tempfile::tempfile_in("/dev/shm").expect("an image");
    let mut piece = vec![0; LARGE];
    for at in (0..SIZE).step_by(LARGE) {
        piece.fill((at >> 20) as u8 | 1);
        image.write_all_at(&piece, at).expect("room for an image");
    }
    image
}

/// MiB a second of so many readers together.
fn rate(device: &Path, readers: u64, read: fn(&Path, u64) -> u64) -> f64 {
    let began = Instant::now();
    let bytes: u64 = std::thread::scope(|scope| {
        let started: Vec<_> = (0..readers)
            .map(|seed| scope.spawn(move || read(device, seed)))
            .collect();
        started
            .into_iter()
            .map(|reader| reader.join().expect("a reader"))
            .sum()
    });
    bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64()
}

fn random(device: &Path, seed: u64) -> u64 {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let pages = SIZE / SMALL as u64;
    reads(device, SMALL, || {
        random.random_range(0..pages) * SMALL as u64
    })
}

fn sequential(device: &Path, _: u64) -> u64 {
    let mut next = 0;
    reads(device, LARGE, || {
        next = (next + LARGE as u64) % SIZE;
        next
    })
}

/// Reads for a while; how many bytes.
fn reads(device: &Path, len: usize, mut place: impl FnMut() -> u64) -> u64 {
    let device = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)
        .expect("the device");
    let mut buffer = AlignedBuf::new(len, 4096);
    let mut bytes = 0;
    let until = Instant::now() + READING;
    while Instant::now() < until {
        let at = place();
        device.read_exact_at(&mut buffer, at).expect("a read");
        assert_eq!(buffer[0], (at >> 20) as u8 | 1, "a byte of another place");
        bytes += len as u64;
    }
    bytes
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
