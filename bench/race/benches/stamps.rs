//! Stamping and verifying beside memcpy, hot in the cache (4 KiB) and streaming (32 MiB).

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use punchbench_race::stamp::Stamps;

const SIZES: [usize; 2] = [4 << 10, 32 << 20];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn memcpy(bencher: Bencher, size: usize) {
    let (from, mut to) = (vec![1u8; size], vec![0u8; size]);
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| black_box(&mut to).copy_from_slice(black_box(&from)));
}

#[divan::bench(args = SIZES)]
fn fill(bencher: Bencher, size: usize) {
    let mut to = vec![0u8; size];
    let stamps = Stamps::new(7);
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| stamps.fill(1, 2, 0, black_box(&mut to)));
}

#[divan::bench(args = SIZES)]
fn verify(bencher: Bencher, size: usize) {
    let mut from = vec![0u8; size];
    let stamps = Stamps::new(7);
    stamps.fill(1, 2, 0, &mut from);
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| stamps.matches(1, 2, 0, black_box(&from)));
}
