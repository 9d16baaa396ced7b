//! x
/// x
#[derive(clap::Args)]
pub struct Options {}
/// x
pub fn build(_: &Options) -> anyhow::Result<()> { anyhow::bail!("not yet") }
