//! The OpenAPI 3.1 document of the HTTP surface, from the descriptors and their comments.
//!
//! Guarantees: it says what the server takes and answers. Types are those of the proto files, bounds those of `afs_types::limits`
//! (`openapi/tables.rs`); the tests of the server hold its answers, and what it refuses, against the document. The raw byte routes and the
//! operators' routes are not in the proto files; they are described by hand (`openapi/raw.rs`).

mod answers;
mod keywords;
mod operations;
mod patterns;
mod raw;
mod rules;
mod schemas;
mod tables;

use crate::AnyError;
use crate::http::{comment, routes};
use prost_reflect::DescriptorPool;
use schemas::Schemas;
use serde_json::{Map, Value, json};

const ABOUT: &str = "Copy-on-write workspaces for agents. The same services answer gRPC on the same port. \
    64-bit integers are strings, bytes are base64, times are RFC 3339, unknown fields are refused, \
    errors are application/problem+json. Paths are absolute inside a session; bytes of a name that \
    are not UTF-8, and '%', are written %XX. Streams are server-sent events, or lines of JSON with \
    'Accept: application/x-ndjson'. In a request, null is the same as a field that is not there, a number may \
    be text, an enumeration its number, and a name may be written in lowerCamelCase. Lengths are of characters \
    here, while the server counts bytes. Every answer has 'X-Content-Type-Options: nosniff'.";

pub(crate) fn generate(pool: &DescriptorPool) -> Result<String, AnyError> {
    let routes = routes(pool)?;
    let mut schemas = Schemas::of(&routes);
    let mut paths: Map<String, Value> = Map::new();
    for route in &routes {
        let item = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        item[&route.verb] = operations::operation(route, &mut schemas)?;
    }
    for (path, item) in raw::paths(&mut schemas.requests)?.as_object().into_iter().flatten() {
        paths.insert(path.clone(), item.clone());
    }
    if let Some(rule) = schemas.unused_rules().first() {
        return Err(
            format!("build/openapi/tables.rs has a rule for {rule}, which is no field of a route").into()
        );
    }
    let tags: Vec<Value> = pool
        .services()
        .filter(|s| {
            paths.values().any(|p| p.to_string().contains(&format!("\"tags\":[\"{}\"]", tag(s.name()))))
        })
        .map(|s| json!({"name": tag(s.name()), "description": comment(&s.parent_file(), s.path())}))
        .collect();
    schemas.all.insert("Problem".into(), answers::problem());
    schemas.all.insert("StreamError".into(), answers::stream_error());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AetherFS",
            "version": std::env::var("CARGO_PKG_VERSION")?,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.all,
            "responses": answers::responses(),
            "headers": answers::headers()
        }
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn tag(service: &str) -> String {
    service.trim_end_matches("Service").to_owned()
}
