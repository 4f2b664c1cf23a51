//! The committed OpenAPI document is the generated one, and well-formed.

use afs_proto::rest::ROUTES;
use afs_types::limits;
use regex::Regex;
use serde_json::{Value, json};
use std::path::Path;

fn document() -> Value {
    serde_json::from_str(afs_proto::openapi_json()).unwrap()
}

fn property(message: &str, field: &str) -> Value {
    let property = &document()["components"]["schemas"][message]["properties"][field];
    assert!(property.is_object(), "{message}.{field}");
    property.clone()
}

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

#[test]
fn limits_are_those_of_the_server() {
    for (message, field, keyword, limit) in [
        ("ForkSessionRequest", "count", "maximum", limits::MAX_FORKS as usize),
        ("ForkSessionRequest", "new_session_ids", "maxItems", limits::MAX_FORKS as usize),
        ("CreateSessionRequest", "labels", "maxProperties", limits::MAX_LABELS),
        ("CreateSessionRequest", "request_id", "maxLength", limits::MAX_REQUEST_ID_BYTES),
        ("CreateCheckpointRequest", "name", "maxLength", limits::MAX_MESSAGE_BYTES),
        ("SubmitChangesRequest", "changes", "maxItems", limits::MAX_CHANGES),
        ("BatchReadFilesRequest", "paths", "maxItems", limits::MAX_READ_BATCH),
        ("ApplyPatchRequest", "strip", "maximum", limits::MAX_PATCH_STRIP as usize),
        ("ApplyPatchRequest", "patch", "maxLength", limits::MAX_PATCH_BYTES),
        ("CreateDirectoryRequest", "mode", "maximum", 0o7777),
        // A character may stand for a third of a byte.
        ("CreateDirectoryRequest", "path", "maxLength", 3 * limits::MAX_PATH_BYTES),
    ] {
        assert_eq!(property(message, field)[keyword], limit, "{message}.{field}");
    }
    let document = document();
    let parameters = document["paths"]["/v1/sessions"]["get"]["parameters"].as_array().unwrap().clone();
    let size = parameters.iter().find(|p| p["name"] == "page_size").unwrap();
    assert_eq!(size["schema"], json!({"type": "integer", "minimum": 0, "maximum": limits::MAX_PAGE}));
}

#[test]
fn requests_are_wider_than_answers() {
    // What is not needed may be null; a number may be text and the other way round.
    assert_eq!(property("ForkSessionRequest", "count")["type"], json!(["integer", "string", "null"]));
    assert_eq!(property("Span", "start"), json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}));
    let schemas = document()["components"]["schemas"].clone();
    assert_eq!(
        (&schemas["Uint64"]["type"], &schemas["Uint64Input"]["type"]),
        (&json!("string"), &json!(["string", "integer"]))
    );
    assert_eq!(property("EditFileRequest", "path")["type"], "string");
    assert_eq!(schemas["EditFileRequest"]["required"], json!(["path", "edits"]));
    // Of an answer, everything but what may not be set.
    assert_eq!(schemas["MutationResponse"]["required"], json!(["revision", "durability"]));
    let needed = schemas["Session"]["required"].as_array().unwrap().clone();
    assert!(needed.contains(&json!("create_time")) && !needed.contains(&json!("expire_time")), "{needed:?}");
    assert!(schemas["SessionInput"].get("required").is_none());
}

#[test]
fn no_value_of_an_enumeration_is_there_that_is_never_taken_or_answered() {
    let schemas = document()["components"]["schemas"].clone();
    assert_eq!(schemas["Durability"]["enum"], json!(["DURABILITY_ACCEPTED", "DURABILITY_LOCAL"]));
    let both = json!(["DURABILITY_UNSPECIFIED", "DURABILITY_ACCEPTED", "DURABILITY_LOCAL", 0, 1, 2]);
    assert_eq!(schemas["DurabilityInput"]["enum"], both);
    assert_eq!(schemas["SessionState"]["enum"], json!(["SESSION_STATE_ACTIVE", "SESSION_STATE_ARCHIVED"]));
    // An entry that was removed has no type.
    assert_eq!(schemas["EntryType"]["enum"][0], "ENTRY_TYPE_UNSPECIFIED");
    let parameters = document()["paths"]["/v1/sessions"]["get"]["parameters"].as_array().unwrap().clone();
    let states = parameters.iter().find(|p| p["name"] == "states").unwrap();
    assert_eq!(states["schema"]["items"]["enum"], schemas["SessionState"]["enum"]);
}

#[test]
fn of_a_group_one_is_said_or_must_be() {
    let schemas = document()["components"]["schemas"].clone();
    let (change, spec) = (&schemas["Change"]["oneOf"], &schemas["SourceSpecInput"]["oneOf"]);
    assert_eq!((change.as_array().unwrap().len(), spec.as_array().unwrap().len()), (8, 3));
    assert_eq!(spec[0], json!({"required": ["git"], "properties": {"git": {"not": {"type": "null"}}}}));
    assert!(schemas["CreateCommitRequest"].get("oneOf").is_none(), "there is nothing to choose from");
    for message in ["ForkSessionRequest", "PromoteRequest", "Precondition"] {
        assert_eq!(schemas[message]["not"]["required"].as_array().unwrap().len(), 2, "{message}");
    }
}

#[test]
fn bodies_streams_and_states_of_the_server_are_described() {
    let document = document();
    for route in ROUTES.iter().filter(|route| route.body) {
        let body = &document["paths"][route.path][route.verb.to_lowercase()]["requestBody"];
        let to = body["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        let schema = document.pointer(to.trim_start_matches('#')).unwrap();
        assert_eq!(body["required"], schema.get("required").is_some(), "{}", route.method);
    }
    for path in ["manifest", "grep", "diff"] {
        let answer =
            &document["paths"][format!("/v1/sessions/{{session_id}}/{path}")]["get"]["responses"]["200"];
        let lines = &answer["content"]["application/x-ndjson"]["schema"];
        assert_eq!((&lines["type"], lines["items"]["anyOf"].as_array().unwrap().len()), (&json!("array"), 2));
    }
    assert!(
        document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]["application/json"].is_object()
    );
    let part = &document["paths"]["/v1/sessions/{session_id}/files/{path}"]["get"]["responses"]["206"];
    assert!(part["headers"]["Content-Range"].is_object() && part["headers"]["ETag"].is_object());
}

#[test]
fn every_expression_is_one_and_is_anchored() {
    fn visit(value: &Value, count: &mut usize) {
        if let Some(pattern) = value.get("pattern").and_then(Value::as_str) {
            Regex::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(pattern.starts_with('^') && !pattern.contains("(?"), "{pattern}");
            *count += 1;
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, count)),
            Value::Object(members) => members.values().for_each(|member| visit(member, count)),
            _ => {}
        }
    }
    let mut count = 0;
    visit(&document(), &mut count);
    assert!(count > 100, "{count}");
}
