//! The OpenAPI 3.1 document of the HTTP surface, from the descriptors and their comments.
//!
//! The raw byte routes and the operators' routes are not in the proto files; they are described here by hand
//! ([`raw_paths`]) and tested by the server against what it serves.

use crate::AnyError;
use crate::http::{Route, comment, routes};
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(crate) fn generate(pool: &DescriptorPool) -> Result<String, AnyError> {
    let mut schemas = Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes(pool)? {
        let item = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        item[&route.verb] = operation(&route, &mut schemas);
    }
    for (path, item) in raw_paths().as_object().into_iter().flatten() {
        paths.insert(path.clone(), item.clone());
    }
    let tags: Vec<Value> = pool
        .services()
        .filter(|s| {
            paths.values().any(|p| p.to_string().contains(&format!("\"tags\":[\"{}\"]", tag(s.name()))))
        })
        .map(|s| json!({"name": tag(s.name()), "description": comment(&s.parent_file(), s.path())}))
        .collect();
    schemas.0.insert("Problem".into(), problem());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AetherFS",
            "version": std::env::var("CARGO_PKG_VERSION")?,
            "description": "Copy-on-write workspaces for agents. The same services answer gRPC on the same port. \
                64-bit integers are strings, bytes are base64, times are RFC 3339, unknown fields are refused, \
                errors are application/problem+json. Paths are absolute inside a session; bytes of a name that \
                are not UTF-8, and '%', are written %XX. Streams are server-sent events, or lines of JSON with \
                'Accept: application/x-ndjson'.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "responses": {"Problem": {"description": "What went wrong, where, and what to do next.", "content": {
                "application/problem+json": {"schema": reference("Problem")}
            }}}
        }
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let method = &route.method;
    let input = method.input();
    let text = comment(&method.parent_file(), method.path());
    let in_path = route.path_fields();
    let mut parameters: Vec<Value> = Vec::new();
    for name in &in_path {
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    }
    if !route.body {
        for field in input.fields().filter(|f| !in_path.contains(&f.name())) {
            parameters.push(described(
                json!({"name": field.name(), "in": "query", "schema": schemas.field(&field)}),
                &comment(&input.parent_file(), field.path()),
            ));
        }
    }
    parameters.extend(headers(&input));
    let mut operation = described(
        json!({
            "operationId": method.name(),
            "tags": [tag(method.parent_service().name())],
            "parameters": parameters,
            "responses": {"200": answer(route, schemas), "default": {"$ref": "#/components/responses/Problem"}}
        }),
        &text,
    );
    if route.body {
        let schema = schemas.body(&input, &in_path);
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// HTTP's own ways to set fields (`rest/headers.rs` takes them).
fn headers(input: &MessageDescriptor) -> Vec<Value> {
    let header = |name: &str, text: &str| json!({"name": name, "in": "header", "schema": {"type": "string"}, "description": text});
    let has = |field: &str| input.get_field_by_name(field).is_some();
    let mut found = Vec::new();
    if has("request_id") {
        found.push(header("Idempotency-Key", "As `request_id`."));
    }
    if has("precondition") {
        found.push(header("If-Match", "As `precondition.if_etag`: one entity tag, several, or `*`."));
        found.push(header("If-None-Match", "Only `*`, as `precondition.if_absent`."));
    }
    if has("etag") || has("session") {
        found.push(header("If-Match", "One entity tag, as the `etag` of the session, or `*`."));
    }
    if has("wait_seconds") {
        found.push(header("Prefer", "`wait=N`, as `wait_seconds`."));
    }
    found
}

fn answer(route: &Route, schemas: &mut Schemas) -> Value {
    let schema = schemas.message(&route.method.output());
    if route.method.is_server_streaming() {
        let description = "A stream: one message per event, then an event `end`; or `error` with a problem.";
        return json!({"description": description, "content": {
            "text/event-stream": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": schema}
        }});
    }
    json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
}

impl Schemas {
    /// The body of a request: the fields that the path does not hold.
    fn body(&mut self, input: &MessageDescriptor, in_path: &[&str]) -> Value {
        let name = input.name().to_owned();
        let fields: Vec<_> = input.fields().filter(|f| !in_path.contains(&f.name())).collect();
        let schema = self.object(input, &fields);
        self.0.insert(name.clone(), schema);
        reference(&name)
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => return json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => return json!({"type": "string", "examples": ["3.5s"]}),
            "google.protobuf.FieldMask" => {
                return json!({"type": "string", "examples": ["display_name,labels"]});
            }
            "google.protobuf.Empty" => return json!({"type": "object", "additionalProperties": false}),
            _ => {}
        }
        let name = message.name().to_owned();
        if !self.0.contains_key(&name) {
            self.0.insert(name.clone(), Value::Null); // keeps recursion finite
            let fields: Vec<_> = message.fields().collect();
            let schema = self.object(message, &fields);
            self.0.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn object(&mut self, message: &MessageDescriptor, fields: &[FieldDescriptor]) -> Value {
        let file = message.parent_file();
        let mut properties = Map::new();
        for field in fields {
            let mut text = comment(&file, field.path());
            if let Some(group) = field.containing_oneof().filter(|g| !g.is_synthetic()) {
                text = format!("{text} One of the group `{}` at most.", group.name()).trim().to_owned();
            }
            properties.insert(field.name().into(), described(self.field(field), &text));
        }
        let schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        described(schema, &comment(&file, message.path()))
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        if let (Kind::Message(entry), true) = (field.kind(), field.is_map()) {
            let value = self.kind(&entry.map_entry_value_field().kind());
            return json!({"type": "object", "additionalProperties": value});
        }
        let one = self.kind(&field.kind());
        if field.is_list() { json!({"type": "array", "items": one}) } else { one }
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"})
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"})
            }
            Kind::Enum(e) => self.enumeration(e),
            Kind::Message(m) => self.message(m),
        }
    }

    fn enumeration(&mut self, e: &EnumDescriptor) -> Value {
        let names: Vec<_> = e.values().map(|v| v.name().to_owned()).collect();
        let schema =
            described(json!({"type": "string", "enum": names}), &comment(&e.parent_file(), e.path()));
        self.0.insert(e.name().to_owned(), schema);
        reference(e.name())
    }
}

fn described(mut value: Value, text: &str) -> Value {
    if !text.is_empty() {
        value["description"] = text.into();
    }
    value
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn tag(service: &str) -> String {
    service.trim_end_matches("Service").to_owned()
}

fn problem() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "title", "status", "detail", "code", "reason", "metadata", "violations", "next_steps"],
        "properties": {
            "type": text, "title": text, "status": {"type": "integer"}, "detail": text, "instance": text,
            "code": {"type": "string", "description": "gRPC code."},
            "reason": {"type": "string", "description": "Precise cause, upper snake case."},
            "metadata": {"type": "object", "additionalProperties": text},
            "violations": {"type": "array", "items": {
                "type": "object", "properties": {"field": text, "description": text}
            }},
            "next_steps": {"type": "array", "items": text},
            "retry_after_ms": {"type": "integer"}
        }
    })
}

/// Routes that are no rpc.
fn raw_paths() -> Value {
    let problem = json!({"$ref": "#/components/responses/Problem"});
    let header = |name: &str, text: &str| json!({"name": name, "in": "header", "description": text, "schema": {"type": "string"}});
    let query = |name: &str, kind: &str, text: &str| json!({"name": name, "in": "query", "description": text, "schema": {"type": kind}});
    let path = |name: &str, text: &str| json!({"name": name, "in": "path", "required": true, "description": text, "schema": {"type": "string"}});
    let if_match =
        header("If-Match", "Only if the file has this ETag, or one of several; `*`: only if it exists.");
    let if_none = header(
        "If-None-Match",
        "Only if the file does not have this ETag, or one of several; a PUT takes only `*`: if it does not exist.",
    );
    let bytes = json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}});
    let read = |id: &str, text: &str, content: Value| {
        json!({
            "operationId": id, "tags": ["FileSystem"], "description": text,
            "parameters": [header("Range", "One range of bytes."), header("If-Range", "Use Range only if the file still has this ETag."), if_match, if_none, query("checkpoint_id", "string", "Read this checkpoint, this commit, or `base`, instead of the current state.")],
            "responses": {
                "200": {"description": "The file.", "content": content}, "206": {"description": "The range.", "content": content},
                "304": {"description": "The file still has the ETag of If-None-Match."},
                "412": problem, "416": problem, "default": problem
            }
        })
    };
    let mut files = json!({
        "parameters": [path("session_id", "Session."), path("path", "Path inside the session; may hold `/`.")],
        "get": read("GetFileBytes", "The bytes of a file, with ETag, Last-Modified and Accept-Ranges.", bytes.clone()),
        "head": read("HeadFileBytes", "The headers of GetFileBytes.", json!({})),
    });
    files["put"] = json!({
        "operationId": "PutFileBytes", "tags": ["FileSystem"],
        "description": "Makes or replaces a file as a whole; missing parent directories are made.",
        "parameters": [
            if_match, if_none, header("Idempotency-Key", "A retry with the same key has one effect and the same answer."),
            query("mode", "string", "Permission bits of a new file, octal."),
            query("durability", "string", "`accepted` or `local` (default).")
        ],
        "requestBody": {"required": true, "content": bytes},
        "responses": {
            "200": {"description": "Made or replaced.", "content": {"application/json": {"schema": reference("MutationResponse")}}},
            "412": problem, "default": problem
        }
    });
    files["delete"] = json!({
        "operationId": "DeleteFileBytes", "tags": ["FileSystem"],
        "description": "Removes a file, symbolic link or empty directory.",
        "parameters": [if_match, query("durability", "string", "`accepted` or `local` (default).")],
        "responses": {"200": {"description": "Removed.", "content": {"application/json": {"schema": reference("MutationResponse")}}}, "default": problem}
    });
    let plain = |id: &str, text: &str, kind: &str| {
        json!({"get": {"operationId": id, "tags": ["Admin"], "description": text, "responses": {
            "200": {"description": "OK", "content": {kind: {"schema": {}}}}, "default": problem
        }}})
    };
    json!({
        "/v1/sessions/{session_id}/files/{path}": files,
        "/healthz": plain("Healthz", "The process answers.", "text/plain"),
        "/readyz": plain("Readyz", "Every part works; 503 names those that do not.", "application/json"),
        "/version": plain("Version", "Versions of program and contract.", "application/json"),
        "/openapi.json": plain("OpenApi", "This document.", "application/json"),
    })
}
