//! Routes of rpcs as operations: parameters, body, answers.

use super::answers::{ok, problem_reference};
use super::keywords::described;
use super::patterns;
use super::schemas::{Place, Schemas};
use crate::AnyError;
use crate::http::{Route, comment};
use afs_types::limits;
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde_json::{Value, json};

pub(crate) fn operation(route: &Route, schemas: &mut Schemas) -> Result<Value, AnyError> {
    let method = &route.method;
    let input = method.input();
    let in_path = route.path_fields();
    let mut parameters: Vec<Value> = Vec::new();
    for name in &in_path {
        let field =
            input.get_field_by_name(name).ok_or_else(|| format!("{}: no field {name}", route.path))?;
        parameters.push(parameter(&field, "path", schemas)?);
    }
    if !route.body {
        for field in input.fields().filter(|f| !in_path.contains(&f.name())) {
            if field.is_map() || field.kind().as_message().is_some() {
                return Err(format!("{} cannot be a query parameter", field.full_name()).into());
            }
            parameters.push(parameter(&field, "query", schemas)?);
        }
    }
    parameters.extend(headers(&input));
    let mut operation = described(
        json!({
            "operationId": method.name(),
            "tags": [super::tag(method.parent_service().name())],
            "parameters": parameters,
            "responses": {"200": answer(route, schemas)?, "default": problem_reference()}
        }),
        &comment(&method.parent_file(), method.path()),
    );
    if route.body {
        let (schema, is_required) = schemas.body(&input, &in_path)?;
        operation["requestBody"] =
            json!({"required": is_required, "content": {"application/json": {"schema": schema}}});
    }
    Ok(operation)
}

fn parameter(field: &FieldDescriptor, place: &str, schemas: &mut Schemas) -> Result<Value, AnyError> {
    let (schema, is_required) = schemas.field(field, Place::Query)?;
    let mut parameter = json!({"name": field.name(), "in": place, "schema": schema});
    if is_required || place == "path" {
        parameter["required"] = true.into();
    }
    Ok(described(parameter, &comment(&field.parent_file(), field.path())))
}

/// HTTP's own ways to set fields (`rest/headers.rs` takes them).
fn headers(input: &MessageDescriptor) -> Vec<Value> {
    let has = |field: &str| input.get_field_by_name(field).is_some();
    let mut found = Vec::new();
    if has("request_id") {
        found.push(idempotency_key("As `request_id`."));
    }
    if has("precondition") {
        let text = "As `precondition.if_etag`: one entity tag, several, or `*`. A weak one never fits.";
        found.push(header("If-Match", text, json!({"type": "string", "pattern": patterns::etags(false)})));
        let text = "As `precondition.if_absent`: `*`. A list in which nothing is says nothing.";
        found.push(header("If-None-Match", text, json!({"type": "string", "pattern": patterns::any_etag()})));
    }
    if has("etag") || has("session") {
        let text = "One entity tag, as the `etag` of the session, or `*`. A weak one never fits.";
        found.push(header("If-Match", text, json!({"type": "string", "pattern": patterns::etags(true)})));
    }
    if has("wait_seconds") {
        found.push(header("Prefer", "`wait=N`, as `wait_seconds`.", json!({"type": "string"})));
    }
    found
}

pub(crate) fn header(name: &str, text: &str, schema: Value) -> Value {
    json!({"name": name, "in": "header", "schema": schema, "description": text})
}

pub(crate) fn idempotency_key(text: &str) -> Value {
    let most = limits::MAX_REQUEST_ID_BYTES;
    header(
        "Idempotency-Key",
        text,
        json!({"type": "string", "minLength": 1, "maxLength": most, "pattern": patterns::GRAPHIC}),
    )
}

fn answer(route: &Route, schemas: &mut Schemas) -> Result<Value, AnyError> {
    let schema = schemas.message(&route.method.output(), Place::Answer)?;
    if !route.method.is_server_streaming() {
        return Ok(ok("OK", &schema));
    }
    let description = "A stream. Events: one message per event, then an event `end`, or `error` with a problem. \
        Lines, if asked for by `Accept: application/x-ndjson`: one message per line, the last one may be an error; each is an item here.";
    Ok(json!({"description": description, "content": {
        "text/event-stream": {"schema": {"type": "string"}},
        "application/x-ndjson": {"schema": {
            "type": "array",
            "items": {"anyOf": [schema, super::keywords::reference("StreamError")]}
        }}
    }}))
}
