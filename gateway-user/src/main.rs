//! The `fleetgate` binary: the only place that prints errors.

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::Context;
use clap::Parser;
use gateway_user::{
    admin::{self, AdminState},
    agent::{self, Options, Shared},
    cli::{self, Cli, Command, RunArgs},
    dataplane::tables::Tables,
    metrics::{
        FleetCounters, GroupHealth, HealthCounters, Kernel, Metrics, ProxyCounters, Readings,
        Scrape,
    },
};
use tokio::{net::TcpListener, runtime, task::LocalSet};
use tracing_subscriber::EnvFilter;

/// A connection's memory comes and goes with it: taking and giving back is what counts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match command {
        Command::Run(args) => match run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("fleetgate: {error:#}");
                ExitCode::FAILURE
            }
        },
        command => match cli::inspect(&command) {
            Ok(outcome) => outcome.into(),
            Err(failure) => {
                eprintln!("fleetgate: {failure}");
                failure.exit_code()
            }
        },
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let address = args.admin;
    let take_over = args.take_over;
    let options = Options::from(args);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    LocalSet::new().block_on(&runtime, async move {
        // An agent that goes frees the address as well as the pins.
        let claim = match take_over {
            true => agent::claim(&options.pin_dir).await?,
            false => None,
        };
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot serve metrics and probes on {address}; is it taken? see --admin")
        })?;
        agent::run(options, claim, |shared| {
            admin::serve(listener, Arc::new(state(shared)))
        })
        .await?;
        Ok(())
    })
}

/// What the admin server shows of a running agent.
fn state(shared: Arc<Shared>) -> AdminState {
    let (ready, record) = (Arc::clone(&shared), Arc::clone(&shared));
    let stats = Arc::clone(&shared.proxy);
    let metrics = Metrics::new(move || {
        let record = shared.record.load();
        let kernel = Tables::open(&shared.pins).and_then(|tables| {
            let readings = Readings::take(&tables, &record)?;
            let flows = Some(shared.flows.load(Relaxed));
            let ports = shared.ports.load();
            Ok(Kernel::new(&record, &readings, flows).with_ports(&record, &readings, &ports))
        });
        if let Err(error) = &kernel {
            tracing::warn!(%error, "metrics without the kernel's");
        }
        let proxy = shared.proxy.snapshot();
        Scrape {
            kernel: kernel.ok(),
            fleet: FleetCounters {
                servers: shared.servers.get().map(|it| it.all()).unwrap_or_default(),
                status: shared.status.clone(),
            },
            health: HealthCounters {
                probes: Some(Arc::clone(&shared.health)),
                groups: GroupHealth::of(&record.ir),
            },
            proxy: ProxyCounters {
                connections: proxy.accepted_connections,
                active_connections: proxy.active_connections,
                requests: proxy.requests,
                responses: proxy.responses,
                failures: proxy.reasons,
                received_bytes: proxy.downstream_received_bytes,
                sent_bytes: proxy.downstream_sent_bytes,
                upstream_connections: proxy.upstream_opened,
                upstream_reused: proxy.upstream_reused,
                retries: proxy.retries,
                upgrades: proxy.upgrades,
                access_log_lines: (shared.access_log.written(), shared.access_log.lost()),
                spans: (shared.traces.sent(), shared.traces.lost()),
                latencies: proxy.latencies,
            },
        }
    });
    AdminState::new(
        move || ready.ready.load(Relaxed),
        move || record.record.load_full(),
        move || stats.snapshot(),
        metrics,
    )
}
