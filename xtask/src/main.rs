//! Fleetgate's development commands: `cargo xtask --help`.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use xtask::{
    bench, chaos, chart,
    client::{self, Job, Pattern},
    console, demo, ebpf, fuzz_proxy, hostile, kernel_matrix, lab, mixed, netns, pod, setup, suite,
    verify,
};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Fleetgate's development commands"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel programs into <target>/fleetgate.bpf.o (sets up the toolchain if it can)
    BuildEbpf(ebpf::Options),
    /// Install the programs that lab, demo and tests need
    Setup,
    /// Every test: unit, property and golden, then the privileged ones on the kernel
    Test,
    /// Load every kernel program and print what it costs the verifier, against its budget
    Verify {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Lint a Helm chart of deploy/chart and render it (sets up Helm if it can)
    Chart(chart::Options),
    /// Network namespaces: a client, a gateway node, pods of two clusters
    #[command(subcommand)]
    Lab(Lab),
    /// The four scenarios on real connections, measured
    Demo {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Everything changes at once: nothing may be reset or misrouted
    Chaos(chaos::Options),
    /// Requests of every kind while configuration, certificates, pods and program change: none may fail
    Mixed(mixed::Options),
    /// Mutated HTTP/1.x against the proxy: what is served must be what a second reading finds
    FuzzProxy(fuzz_proxy::Options),
    /// Slow and hostile clients of every kind beside a normal one, which must not notice
    Hostile(hostile::Options),
    /// Measurements of one part, with their bars
    #[command(subcommand)]
    Bench(Bench),
    /// Boot other kernels under qemu, and load, attach and forward on each
    KernelMatrix(kernel_matrix::Options),
    /// The test inside a guest of kernel-matrix
    #[command(hide = true)]
    KernelMatrixGuest,
    /// Serve HTTP as a pod of the lab
    #[command(hide = true)]
    LabPod {
        #[arg(long)]
        cluster: String,
        #[arg(long)]
        pod: String,
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Open connections from the lab's client and count who answers
    #[command(hide = true)]
    LabClient(Client),
    /// The measurement of bench l7, in namespaces of its own
    #[command(hide = true)]
    BenchL7Stage(bench::l7::StageOptions),
    /// Remove the lab when the command that made it is gone
    #[command(hide = true)]
    LabGuard,
}

#[derive(Subcommand)]
enum Bench {
    /// How evenly rings share, and what a change of backends moves
    Ring {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// What a configuration and its changes cost, at 1 000, 10 000 and 100 000 pods
    Control {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// What a million flows cost: memory, new flows, sweeps
    Flows {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// What the kernel path costs: ns per packet, packets/s, bulk TCP, connections/s; beside nftables, HAProxy and
    /// plain routing
    L4(bench::l4::Options),
    /// What a request costs in the proxy: CPU, requests/s, memory of idle connections; beside HAProxy, nginx and Envoy
    L7(bench::l7::Options),
}

#[derive(Subcommand)]
enum Lab {
    /// Build the lab and leave it running
    Up,
    /// Remove the lab
    Down,
    /// Show the lab
    Status,
}

#[derive(Args)]
struct Client {
    /// Where to connect
    #[arg(long)]
    target: SocketAddr,
    /// One request over each of this many connections
    #[arg(long, default_value_t = 1000)]
    connections: u64,
    /// This many requests over keep-alive connections instead, one connection for each thread
    #[arg(long)]
    requests: Option<u64>,
    /// Connections open at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Path to ask for
    #[arg(long, default_value = "/")]
    path: String,
    /// Header to add, as 'Name: value'
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Milliseconds between two requests of one thread
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Network namespace to connect from
    #[arg(long, default_value = lab::topology::CLIENT)]
    namespace: String,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            console::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::BuildEbpf(options) => ebpf::build(&options).map(drop),
        Command::Setup => setup::run(),
        Command::Test => return suite::run(),
        Command::Verify { json } => return verify::run(json),
        Command::Chart(options) => chart::run(&options),
        Command::Lab(Lab::Up) => lab::up(),
        Command::Lab(Lab::Down) => lab::down(),
        Command::Lab(Lab::Status) => lab::status(),
        Command::Demo { json } => return demo::run(json),
        Command::Chaos(options) => return chaos::run(options),
        Command::Mixed(options) => return mixed::run(options),
        Command::FuzzProxy(options) => return fuzz_proxy::run(options),
        Command::Hostile(options) => return hostile::run(&options),
        Command::Bench(Bench::Control { json }) => return bench::control(json),
        Command::KernelMatrix(options) => return kernel_matrix::run(&options),
        Command::KernelMatrixGuest => kernel_matrix::guest::run(),
        Command::Bench(Bench::Ring { json }) => return bench::ring::run(json),
        Command::Bench(Bench::Flows { json }) => return bench::flows::flows(json),
        Command::Bench(Bench::L4(options)) => return bench::l4::run(&options),
        Command::Bench(Bench::L7(options)) => return bench::l7::run(&options),
        Command::BenchL7Stage(options) => bench::l7::inside(&options),
        Command::LabPod {
            cluster,
            pod,
            listen,
        } => pod::serve(&cluster, &pod, listen),
        Command::LabClient(client) => return load(client),
        Command::LabGuard => lab::guard::watch(),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn load(client: Client) -> Result<ExitCode> {
    let job = Job {
        target: client.target,
        path: client.path,
        headers: client.headers,
        pattern: client.requests.map_or(
            Pattern::OnePerConnection(client.connections),
            Pattern::KeepAlive,
        ),
        threads: client.threads,
        pause: Duration::from_millis(client.pause_ms),
        at_most: Duration::from_secs(client.seconds),
        timeline: false,
    };
    let tally = netns::inside(&client.namespace, || client::run(&job))?;
    console::say(serde_json::to_string(&tally)?);
    Ok(if tally.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
