//! Regenerates `src/json/descriptors.bin.gz`, the descriptors behind the JSON form of xDS.
//!
//! `envoy-types` ships the descriptors of its messages in its package but does not export them, and nothing tells a
//! build script where another package lies. So the file is taken from the package once per version, without the
//! comments that make up most of it, and kept in the repository:
//!
//! ```text
//! cargo run -p lateen-xds --example descriptors
//! ```

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;

fn main() -> Result<()> {
    let package = package_of_envoy_types()?;
    let source = package.join("src/generated/types.bin");
    let encoded = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let mut files = FileDescriptorSet::decode(encoded.as_slice())
        .with_context(|| format!("cannot decode {}", source.display()))?;
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/json/descriptors.bin.gz");
    // No time and no name in the header: the same input gives the same bytes.
    let mut packer = GzBuilder::new().write(Vec::new(), Compression::best());
    packer.write_all(&files.encode_to_vec())?;
    let packed = packer.finish()?;
    fs::write(&target, &packed).with_context(|| format!("cannot write {}", target.display()))?;
    println!(
        "{}: {} files, {} bytes",
        target.display(),
        files.file.len(),
        packed.len()
    );
    Ok(())
}

/// The folder of the `envoy-types` package that this workspace builds with.
fn package_of_envoy_types() -> Result<PathBuf> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cannot parse cargo metadata")?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .and_then(|manifest| PathBuf::from(manifest).parent().map(PathBuf::from))
        .context("this workspace does not depend on envoy-types")
}
