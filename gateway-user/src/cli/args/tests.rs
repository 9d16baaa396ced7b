use clap::CommandFactory;

use super::*;
use crate::ir::SteeringWish;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent_and_every_flag_is_explained() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    for sub in command.get_subcommands() {
        assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
        for arg in sub.get_arguments() {
            assert!(
                arg.get_help().is_some(),
                "{} {}",
                sub.get_name(),
                arg.get_id()
            );
        }
    }
}

#[test]
fn run_takes_its_documented_defaults() {
    let Command::Run(run) = parse("fleetgate run --manifests m --interface eth0")
        .unwrap()
        .command
    else {
        panic!("another command")
    };
    assert_eq!(run.pins.pin_dir, PathBuf::from("/sys/fs/bpf/fleetgate"));
    assert_eq!(run.admin, "127.0.0.1:9620".parse().unwrap());
    assert_eq!(
        (run.snat_ports.first, run.snat_ports.last),
        (10_000, 29_999)
    );
    assert_eq!((run.sample_every, run.max_flows), (0, None));
    assert_eq!((run.steering, run.xdp), (SteeringArg::Auto, XdpArg::Auto));
    assert_eq!(run.tc, TcArg::Auto);
    assert!(run.vip.is_empty() && run.snat.is_empty());
}

#[test]
fn run_takes_several_interfaces_vips_and_pools() {
    let line = "fleetgate run --manifests m --interface a --interface b --vip 10.0.0.1 \
                    --vip 10.0.0.2 --snat 10.9.0.0/28 --snat-ports 2000-2999 --steering request";
    let Command::Run(run) = parse(line).unwrap().command else {
        panic!("another command")
    };
    assert_eq!(run.interface, ["a", "b"]);
    assert_eq!(run.vip.len(), 2);
    assert_eq!(run.snat[0].addresses().count(), 14);
    assert_eq!(run.snat_ports.count(), 1000);
    assert_eq!(SteeringWish::from(run.steering), SteeringWish::Request);
}

#[test]
fn every_inspection_takes_an_output_format_and_a_pin_dir() {
    for name in [
        "status", "routes", "services", "backends", "flows", "stats", "unload",
    ] {
        parse(&format!("fleetgate {name} -o json --pin-dir /x")).unwrap();
    }
    let Command::Status(status) = parse("fleetgate status -o json").unwrap().command else {
        panic!("another command")
    };
    assert_eq!(status.output.format, Format::Json);
    parse("fleetgate check m -o json").unwrap();
    parse("fleetgate plan m -o json").unwrap();
    parse("fleetgate trace --from ::1 --to 10.0.0.1:80 -o json").unwrap();
}

#[test]
fn wrong_usage_exits_with_two() {
    for line in [
        "fleetgate run --manifests m",
        "fleetgate run --manifests m --interface e --snat 10.0.0.0/40",
        "fleetgate run --manifests m --interface e --snat-ports 9-3",
        "fleetgate trace --from 10.0.0.1 --to 10.0.0.2",
        "fleetgate status -o xml",
        "fleetgate top --interval 0",
        "fleetgate",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}
