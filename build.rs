//! Compiles `proto/` with protox (no protoc on the machine is needed) into the generated gRPC code,
//! and writes the descriptor set that reflection serves, with custom options kept.

use std::{error::Error, fs, path::PathBuf};

use prost::Message;
use protox::{Compiler, prost_reflect::prost_types::FileDescriptorSet};

const SERVICE: &str = "proto/organization/v1/organization_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    // Neither prost-build nor tonic-build says it: without this line a changed proto is not seen.
    println!("cargo:rerun-if-changed=proto");

    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file(SERVICE)?;

    #[expect(clippy::disallowed_methods, reason = "this is how Cargo tells where output goes")]
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // The encoder keeps custom options (the rights to a field); `file_descriptor_set()` drops them.
    fs::write(out_dir.join("organization_descriptor.bin"), compiler.encode_file_descriptor_set())?;

    let files = FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?;
    // Maps keep an order, so that what is made of them is the same in every run.
    let builder = tonic_prost_build::configure().build_transport(false).btree_map(".");
    builder.compile_fds(files)?;
    Ok(())
}
