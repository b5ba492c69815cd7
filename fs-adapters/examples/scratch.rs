use punchbench_fs::subject::*;
use punchbench_race::*;
use punchbench_scenarios::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let sc = punchbench_scenarios::find(&a[2])
        .into_iter()
        .next()
        .unwrap()
        .clone();
    let g = Geometry {
        page: 4096,
        block: 4096,
    };
    let subj = SyscallSubjects::new(
        std::path::Path::new(&a[1]),
        &sc,
        g,
        SubjectOptions {
            cache_is_store: a.len() > 4,
            ..Default::default()
        },
    )
    .unwrap();
    let secs: f64 = a[3].parse().unwrap();
    let spec = TrialSpec {
        scenario: sc.clone(),
        geometry: g,
        seed: 7,
        nonce: 99,
        limits: Limits {
            time: Some(std::time::Duration::from_secs_f64(secs)),
            rounds: None,
        },
        cpus: vec![],
    };
    let t = std::time::Instant::now();
    let r = race(&spec, &subj, Host::Fork, &mut |_| {}).unwrap();
    let v = verdict(&r.evidence, &r.violations, &sc.evidence, a.len() > 4);
    let e = &r.evidence;
    println!(
        "{} {:?} {:.2}s racing {:.2}s rounds/s {:.0} overlap {:.3}",
        sc.scenario,
        v,
        t.elapsed().as_secs_f64(),
        e.racing_ns as f64 / 1e9,
        e.rounds as f64 * 1e9 / e.racing_ns as f64,
        e.overlapped as f64 / e.rounds as f64
    );
    println!("{}", serde_json::to_string(&r.evidence).unwrap());
    for v in r.violations.iter().take(3) {
        println!("{}", serde_json::to_string(v).unwrap());
    }
}
