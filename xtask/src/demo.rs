//! x
/// x
pub fn run(_: bool) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("not yet")
}
