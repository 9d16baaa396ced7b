//! `cargo xtask setup`: programs the lab and the tests need, from the distribution's packages; Helm, see [`chart`]; and
//! [`clients`].

pub mod clients;
pub mod python;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    chart,
    console::{self, Step},
    process,
};

/// A program and the Debian package that brings it.
pub type Need = (&'static str, &'static str);

/// What the lab and its measurements run.
pub const LAB: &[Need] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iperf3", "iperf3"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ps", "procps"),
    ("curl", "curl"),
];

/// A second opinion for the tests of the proxy, and pods that end TLS or read PROXY headers.
pub const REFEREE: &[Need] = &[("haproxy", "haproxy")];

/// Installs what is missing for these programs; does nothing, quickly, when all are there.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| process::which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    install(&packages)?;
    match needs
        .iter()
        .find(|(program, _)| process::which(program).is_none())
    {
        Some((program, package)) => {
            bail!("{program} is still missing after installing {package}; check your PATH")
        }
        None => Ok(()),
    }
}

/// Installs packages with apt. Without root or apt, says which command to run instead.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if process::which("apt-get").is_none() {
        bail!(
            "missing packages: {list} (Debian names); this machine has no apt-get, install them with its own tool"
        );
    }
    if !process::root() {
        bail!(
            "missing packages; run: sudo apt-get update && sudo apt-get install --no-install-recommends {list}"
        );
    }
    let step = Step::start("apt-get update");
    apt(&["update", "-qq"])?;
    step.done();
    let step = Step::start(format!("apt-get install {list}"));
    apt(&[
        &["install", "-y", "-qq", "--no-install-recommends"],
        packages,
    ]
    .concat())?;
    step.done();
    Ok(())
}

/// Whether a package is installed.
pub fn installed(package: &str) -> bool {
    process::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]))
        .is_ok_and(|status| status.trim() == "installed")
}

/// `cargo xtask setup`.
pub fn run() -> Result<()> {
    ensure(LAB)?;
    ensure(REFEREE)?;
    let helm = chart::ensure()?;
    clients::ensure()?;
    let mut rows: Vec<Vec<String>> = LAB
        .iter()
        .chain(REFEREE)
        .filter_map(|(program, package)| {
            let path = process::which(program)?;
            Some(vec![
                (*program).into(),
                (*package).into(),
                path.display().to_string(),
            ])
        })
        .collect();
    rows.push(vec![
        "helm".into(),
        chart::PACKAGE.into(),
        helm.display().to_string(),
    ]);
    for client in [clients::GRPC, clients::WEBSOCKETS] {
        rows.push(client.row()?);
    }
    console::say(console::table(&["program", "package", "path"], &rows));
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    process::output(
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .context("check the network and /etc/apt/sources.list, then run the command by hand")?;
    Ok(())
}
