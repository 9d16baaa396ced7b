//! Embeds the kernel object that `cargo xtask build-ebpf` left in the target folder.
//!
//! Without one the agent still builds, so that everything but loading works without the eBPF
//! toolchain; `fleetgate run` then says which command makes it.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => manifest_dir.join("..").join(dir),
        None => manifest_dir.join("../target"),
    };
    let object = target.join("fleetgate.bpf.o");
    println!("cargo:rerun-if-changed={}", object.display());
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_DIR");
    let bytes = if object.exists() {
        fs::read(&object)?
    } else {
        Vec::new()
    };
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("fleetgate.bpf.o"),
        bytes,
    )?;
    Ok(())
}
