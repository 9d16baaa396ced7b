//! Clients that people use, for the tests of the proxy: each a Python package in an environment of its own.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::python;

/// gRPC as its own project makes it, client and server.
///
/// The last version that needs no other package, see [`python::environment`].
pub const GRPC: Client = Client {
    name: "grpc",
    package: "grpcio==1.74.0",
};
/// WebSocket, client and server.
pub const WEBSOCKETS: Client = Client {
    name: "websockets",
    package: "websockets==15.0.1",
};

/// A package, and what its environment is called.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    name: &'static str,
    package: &'static str,
}

impl Client {
    /// Python of its environment, which must be set up.
    ///
    /// # Errors
    /// If it is not, with the command that does it: tests load nothing by themselves.
    pub fn python(self) -> Result<PathBuf> {
        let Self { name, package } = self;
        match python::existing(name, package) {
            Some(home) => Ok(home.join("bin/python")),
            None => bail!(
                "{package} is not set up; run: cargo xtask setup (cargo xtask test does it, too)"
            ),
        }
    }

    /// What it is, and where.
    pub(super) fn row(self) -> Result<Vec<String>> {
        let python = self.python()?.display().to_string();
        Ok(vec![self.name.into(), self.package.into(), python])
    }
}

/// Sets up those that are missing (8 MB to load).
pub fn ensure() -> Result<()> {
    for Client { name, package } in [GRPC, WEBSOCKETS] {
        python::environment(name, package)?;
    }
    Ok(())
}
