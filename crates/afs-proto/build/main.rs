//! Compiles `proto/aether/v1` without protoc: messages and gRPC (prost, tonic), JSON (pbjson), REST routes and
//! field tables (`rest.rs`), the tables that requests are looked over with (`wire.rs`) and the OpenAPI document (`openapi.rs`), all from
//! one descriptor set.

mod http;
mod openapi;
mod rest;
mod wire;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use std::path::{Path, PathBuf};

type AnyError = Box<dyn std::error::Error>;

const FILES: [&str; 7] = ["types", "source", "session", "file_system", "persistence", "bridge", "admin"];

#[allow(clippy::print_stdout, reason = "a build script talks to cargo on stdout")]
fn main() -> Result<(), AnyError> {
    let root = Path::new("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true);
    for file in FILES {
        compiler.open_file(root.join(format!("aether/v1/{file}.proto")))?;
    }
    // Encoded by hand: prost-types would drop the google.api.http options.
    let encoded = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(encoded.as_slice())?;

    std::fs::write(out.join("descriptor.bin"), without_comments(&compiler).encode_to_vec())?;
    messages(&compiler, &out)?;
    json(&encoded, &out)?;
    std::fs::write(out.join("rest_routes.rs"), rest::generate(&pool)?)?;
    std::fs::write(out.join("wire.rs"), wire::generate(&pool)?)?;
    std::fs::write(out.join("openapi.json"), openapi::generate(&pool)?)?;
    Ok(())
}

/// What reflection serves: comments would make it three times as large.
fn without_comments(compiler: &protox::Compiler) -> prost_types::FileDescriptorSet {
    let mut set = compiler.file_descriptor_set();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

fn messages(compiler: &protox::Compiler, out: &Path) -> Result<(), AnyError> {
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::wire::Codec")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(only_ours(compiler.file_descriptor_set()))?;
    Ok(())
}

/// google.api is for generators; no code is needed for it.
fn only_ours(mut set: prost_types::FileDescriptorSet) -> prost_types::FileDescriptorSet {
    set.file.retain(|f| f.package() != "google.api");
    for file in &mut set.file {
        file.dependency.retain(|d| !d.starts_with("google/api/"));
    }
    set
}

fn json(encoded: &[u8], out: &Path) -> Result<(), AnyError> {
    pbjson_build::Builder::new()
        .register_descriptors(encoded)?
        .out_dir(out)
        .btree_map(["."])
        .preserve_proto_field_names()
        .emit_fields()
        .build(&[".aether.v1"])?;
    Ok(())
}
