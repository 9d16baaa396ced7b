//! The `fleetgate` binary.
use gateway_user::agent::{self, Options};
fn main() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let a: Vec<String> = std::env::args().collect();
    let o = Options {
        manifests: a[1].clone().into(),
        interfaces: a[2..].to_vec(),
        vips: vec![],
        snat: vec![],
        snat_ports: (10000, 29999),
        steering: Default::default(),
        xdp: Default::default(),
        pin_dir: "/sys/fs/bpf/fg-demo".into(),
        max_flows: 1 << 18,
        sample_every: 0,
        ring_secret: String::new(),
    };
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let l = tokio::task::LocalSet::new();
    if let Err(e) = l.block_on(
        &rt,
        agent::run(o, |s| async move {
            let _s = s;
            std::future::pending::<()>().await
        }),
    ) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}
