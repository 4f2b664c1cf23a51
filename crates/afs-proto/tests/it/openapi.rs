//! The committed OpenAPI document is the generated one, and well-formed.

use afs_proto::rest::ROUTES;
use serde_json::Value;
use std::path::Path;

/// `AFS_UPDATE=1 cargo test -p afs-proto` writes it.
#[test]
fn the_committed_document_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("AFS_UPDATE").is_some() {
        std::fs::write(&file, afs_proto::openapi_json()).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == afs_proto::openapi_json(),
        "docs/openapi.json is not what proto/ says: run AFS_UPDATE=1 cargo test -p afs-proto openapi"
    );
}

#[test]
fn every_route_is_described_and_every_reference_resolves() {
    let document: Value = serde_json::from_str(afs_proto::openapi_json()).unwrap();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.verb.to_lowercase()];
        assert_eq!(operation["operationId"], route.method.rsplit('.').next().unwrap(), "{}", route.method);
        assert_eq!(operation["requestBody"].is_object(), route.body);
    }
    let text = afs_proto::openapi_json();
    for reference in text.split("\"#/").skip(1).map(|part| part.split('"').next().unwrap()) {
        assert!(document.pointer(&format!("/{reference}")).is_some_and(|v| !v.is_null()), "{reference}");
    }
}
