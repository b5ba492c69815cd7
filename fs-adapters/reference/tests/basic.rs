use punchbench_reference::*;
#[test]
fn try_all() {
    for policy in policies() {
        for setup in hazards() {
            let m = compile(&setup, &policy).unwrap();
            let e = explore(&m, &Limits::default());
            println!(
                "{:22} {:26} {:8} states {:8} tr {:?} est {:.0} {:.0}B {:?} waits {} {}",
                policy.policy,
                setup.name,
                e.states,
                e.transitions,
                e.time,
                punchbench_reference::explore::estimate(&m),
                e.bytes_per_state,
                e.found
                    .keys()
                    .map(|k| {
                        let s = punchbench_reference::shortest::shortest(&m, *k, 1_000_000)
                            .unwrap_or_default();
                        format!(
                            "{k}({}/{})",
                            punchbench_reference::shortest::switches(&s),
                            s.len()
                        )
                    })
                    .collect::<Vec<_>>(),
                e.reads_waiting,
                if e.complete { "" } else { "INCOMPLETE" }
            );
        }
    }
}
