//! What it costs that reads wait for writes: reads of 4 KiB from the page cache, alone and beside a writer of 1 MiB
//! pieces to other places of the same file. XFS serializes the two by i_rwsem, which the invalidate_lock was made to
//! avoid on the others ("mixed read-write workloads suffer", Jan Kara, 2021-04-23).
//!
//! `cargo bench -p punchbench --bench mixed` as root; with PUNCHBENCH_PLOT=FILE.svg draws the latencies, too.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use plotters::prelude::*;
use punchbench_fs::{Privilege, SetUp, Tag, Target};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const FILESYSTEMS: [&str; 4] = ["ext4", "xfs", "btrfs", "tmpfs"];
const TIMES: usize = 5;
const READING: Duration = Duration::from_secs(2);
const SIZE: u64 = 64 << 20;
const READ: usize = 4096;
const WRITE: usize = 1 << 20;
/// More reads than fit into the time.
const READS_MAX: usize = 8_000_000;

/// One load on one filesystem.
#[derive(Clone, Copy, Default)]
struct Measured {
    reads_per_s: f64,
    /// Latency of a read in microseconds: median, 99 % and 99.9 % are faster.
    p50: f64,
    p99: f64,
    p999: f64,
    /// Of the writer.
    mib_per_s: f64,
}

fn main() -> ExitCode {
    if Privilege::current() != Privilege::Root {
        println!("not measured: mounts need root");
        return ExitCode::SUCCESS;
    }
    punchbench_sys::mount::enter_private_namespace().expect("a mount namespace of our own");
    println!("| filesystem | writer | reads/s | median | p99 | p99.9 | written |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut rows = Vec::new();
    for name in FILESYSTEMS {
        let Some(both) = on(name) else { continue };
        for (writer, m) in ["none", "1 MiB"].iter().zip(both) {
            println!(
                "| {name} | {writer} | {:.0} k | {:.1} µs | {:.1} µs | {:.1} µs | {:.0} MiB/s |",
                m.reads_per_s / 1e3,
                m.p50,
                m.p99,
                m.p999,
                m.mib_per_s
            );
        }
        rows.push((name, both));
    }
    if let Some(path) = std::env::var_os("PUNCHBENCH_PLOT") {
        plot(&PathBuf::from(path), &rows).expect("a plot");
    }
    ExitCode::SUCCESS
}

/// Reads alone and beside writes, in turn.
fn on(name: &str) -> Option<[Measured; 2]> {
    let dir = tempfile::tempdir().expect("a directory");
    let tag = Tag::of_this_process();
    let background = |_: u64, buf: &mut [u8]| buf.fill(0);
    let target = Target::parse(name).expect("a filesystem");
    let mounted = match target.set_up(&SetUp::new(&tag, dir.path(), &background)) {
        Ok(mounted) => mounted,
        Err(why) => {
            println!("| {name} | not measured: {why:?} |");
            return None;
        }
    };
    let path = mounted.dir().join("file");
    let piece = vec![7; WRITE];
    let file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    for at in (0..SIZE).step_by(WRITE) {
        file.write_all_at(&piece, at).expect("room");
    }
    file.sync_all().expect("fsync");
    let mut latencies = Vec::with_capacity(READS_MAX);
    let mut all = [const { Vec::new() }; 2];
    for _ in 0..TIMES {
        for (with_writer, into) in [false, true].into_iter().zip(&mut all) {
            into.push(measure(&file, &piece, with_writer, &mut latencies));
        }
    }
    Some(all.map(|turns| median(&turns)))
}

fn measure(file: &File, piece: &[u8], with_writer: bool, latencies: &mut Vec<u32>) -> Measured {
    latencies.clear();
    let ended = AtomicBool::new(false);
    let (written, seconds) = std::thread::scope(|scope| {
        let writer = with_writer.then(|| scope.spawn(|| write(file, piece, &ended)));
        let begun = Instant::now();
        read(file, latencies);
        let seconds = begun.elapsed().as_secs_f64();
        ended.store(true, Relaxed);
        (writer.map_or(0, |w| w.join().expect("the writer")), seconds)
    });
    latencies.sort_unstable();
    let at = |share: f64| f64::from(latencies[(latencies.len() as f64 * share) as usize]) / 1e3;
    Measured {
        reads_per_s: latencies.len() as f64 / seconds,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        mib_per_s: written as f64 / f64::from(1 << 20) / seconds,
    }
}

fn read(file: &File, latencies: &mut Vec<u32>) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut buffer = [0; READ];
    let until = Instant::now() + READING;
    let mut before = Instant::now();
    while before < until && latencies.len() < READS_MAX {
        let at = random.random_range(0..SIZE / READ as u64) * READ as u64;
        file.read_exact_at(&mut buffer, at).expect("a read");
        let after = Instant::now();
        latencies.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
        before = after;
    }
}

/// How many bytes were written.
fn write(file: &File, piece: &[u8], ended: &AtomicBool) -> u64 {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    let mut written = 0;
    while !ended.load(Relaxed) {
        let at = random.random_range(0..SIZE / WRITE as u64) * WRITE as u64;
        file.write_all_at(piece, at).expect("a write");
        written += WRITE as u64;
    }
    written
}

fn median(turns: &[Measured]) -> Measured {
    let of = |field: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measured {
        reads_per_s: of(|m| m.reads_per_s),
        p50: of(|m| m.p50),
        p99: of(|m| m.p99),
        p999: of(|m| m.p999),
        mib_per_s: of(|m| m.mib_per_s),
    }
}

/// Latency of a read at the 99th percentile, on a logarithmic axis.
fn plot(
    path: &std::path::Path,
    rows: &[(&str, [Measured; 2])],
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (720, 360)).into_drawing_area();
    area.fill(&WHITE)?;
    let slowest = rows.iter().flat_map(|(_, both)| both).map(|m| m.p99);
    let top = slowest.fold(1.0, f64::max) * 2.0;
    let caption = "a cached 4 KiB read, 99th percentile";
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..rows.len() as f64, (0.1..top).log_scale())?;
    let label = |x: &f64| {
        let row = rows.get(*x as usize);
        let name = row.filter(|_| x.fract() != 0.0).map(|(name, _)| *name);
        name.unwrap_or_default().to_owned()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * rows.len() + 1)
        .x_label_formatter(&label)
        .y_desc("µs (logarithmic)")
        .draw()?;
    for (at, (name, color)) in [
        ("reads alone", RGBColor(120, 150, 190)),
        ("beside a writer of 1 MiB pieces", RGBColor(200, 80, 60)),
    ]
    .into_iter()
    .enumerate()
    {
        let bars = rows.iter().enumerate().map(|(row, (_, both))| {
            let left = row as f64 + 0.15 + 0.35 * at as f64;
            Rectangle::new([(left, 0.1), (left + 0.33, both[at].p99)], color.filled())
        });
        chart
            .draw_series(bars)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}
