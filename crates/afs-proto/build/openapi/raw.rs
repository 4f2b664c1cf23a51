//! Routes that are no rpc: raw bytes of files, and what operators ask. Described by hand; the server tests them against what it serves.

use super::answers::{headers_of, ok, problem_content, problem_reference};
use super::keywords::reference;
use super::operations::{header, idempotency_key};
use super::patterns;
use super::rules::Rules;
use super::tables::instant;
use crate::AnyError;
use serde_json::{Value, json};

/// Paths and their items.
pub(crate) fn paths(requests: &mut Rules) -> Result<Value, AnyError> {
    Ok(json!({
        "/v1/sessions/{session_id}/files/{path}": files(requests)?,
        "/healthz": plain("Healthz", "The process answers.", &json!({"text/plain": {"schema": {"type": "string", "const": "ok\n"}}})),
        "/readyz": readiness(),
        "/version": plain("Version", "Versions of program and contract.", &json!({"application/json": {"schema": version()}})),
        "/openapi.json": plain("OpenApi", "This document.", &json!({"application/json": {"schema": {
            "type": "object", "required": ["openapi", "info", "paths", "components"]
        }}})),
    }))
}

fn plain(id: &str, text: &str, content: &Value) -> Value {
    json!({"get": {"operationId": id, "tags": ["Admin"], "description": text, "responses": {
        "200": {"description": "OK", "content": content}, "default": problem_reference()
    }}})
}

fn readiness() -> Value {
    let checks = json!({"schema": reference("CheckReadinessResponse")});
    json!({"get": {
        "operationId": "Readyz", "tags": ["Admin"], "description": "Whether every part works; 503 when one does not.",
        "responses": {
            "200": ok("Every part works; some may warn.", &reference("CheckReadinessResponse")),
            "503": {
                "description": "A part does not work: its check has failed. A problem: they could not be run.",
                "headers": headers_of(&["Retry-After"]),
                "content": {"application/json": checks, "application/problem+json": problem_content()}
            },
            "default": problem_reference()
        }
    }})
}

fn version() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["version", "api_version"],
        "properties": {"version": text, "api_version": text}, "additionalProperties": false})
}

fn query(name: &str, text: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "description": text, "schema": schema})
}

fn durability() -> Value {
    let text = "`accepted`: applied and visible; `local` (the default): on the server's disk, too.";
    query("durability", text, &json!({"type": "string", "enum": ["accepted", "local"]}))
}

fn files(requests: &mut Rules) -> Result<Value, AnyError> {
    let session = requests.find("", "session_id").ok_or("session_id has no rule")?;
    let session = super::keywords::with(json!({"type": "string"}), &session.one);
    let path = |name: &str, text: &str, schema: Value| json!({"name": name, "in": "path", "required": true, "description": text, "schema": schema});
    let mut files = json!({
        "parameters": [
            path("session_id", "Session.", session),
            path("path", "Path inside the session, of any bytes; may hold `/`.", json!({"type": "string", "minLength": 1}))
        ],
        "get": read("GetFileBytes", "The bytes of a file, with ETag, Last-Modified and Accept-Ranges."),
        "put": write(),
        "delete": remove(),
    });
    let mut head =
        read("HeadFileBytes", "The headers of GetFileBytes. There is no body, also when it is refused.");
    let responses = json!({
        "200": {"description": "The file.", "headers": file_headers(&["Content-Length"])},
        "304": head["responses"]["304"].clone(),
        "default": {"description": "Refused, as GetFileBytes would be.", "headers": headers_of(&["Retry-After"])}
    });
    head["responses"] = responses;
    files["head"] = head;
    Ok(files)
}

fn if_match(text: &str) -> Value {
    header("If-Match", text, json!({"type": "string", "pattern": patterns::etags(false)}))
}

/// What every answer with a file has.
fn file_headers(more: &[&str]) -> Value {
    headers_of(&[&["ETag", "Last-Modified", "Accept-Ranges", "Cache-Control"], more].concat())
}

fn bytes() -> Value {
    json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}})
}

fn read(id: &str, text: &str) -> Value {
    let at = super::keywords::with(json!({"type": "string"}), &instant().one);
    json!({
        "operationId": id, "tags": ["FileSystem"], "description": text,
        "parameters": [
            header("Range", "One range of bytes; several, and what is no range, are as none.", json!({"type": "string"})),
            header("If-Range", "Use Range only if the file still has this ETag.", json!({"type": "string"})),
            if_match("Only if the file has this ETag, or one of several; `*`: only if it exists."),
            header(
                "If-None-Match", "Only if the file does not have this ETag, nor one of several.",
                json!({"type": "string", "pattern": patterns::etags(false)})
            ),
            query("checkpoint_id", "Read this checkpoint, this commit, or `base`, instead of the current state.", &at)
        ],
        "responses": {
            "200": {"description": "The file.", "headers": file_headers(&["Content-Length"]), "content": bytes()},
            "206": {"description": "The range.", "headers": file_headers(&["Content-Length", "Content-Range"]), "content": bytes()},
            "304": {"description": "The file still has an ETag of If-None-Match.", "headers": file_headers(&[])},
            "412": problem_reference(),
            "416": {
                "description": "The range begins behind the end.", "headers": headers_of(&["Content-Range"]),
                "content": {"application/problem+json": problem_content()}
            },
            "default": problem_reference()
        }
    })
}

fn write() -> Value {
    let mut done = ok("Made or replaced.", &reference("MutationResponse"));
    done["headers"] = headers_of(&["ETag"]);
    json!({
        "operationId": "PutFileBytes", "tags": ["FileSystem"],
        "description": "Makes or replaces a file as a whole; missing parent directories are made. No body makes an empty file.",
        "parameters": [
            if_match("Only if the file has this ETag, or one of several; `*`: only if it exists. A weak one never fits."),
            header(
                "If-None-Match", "`*`: only if it does not exist. A list in which nothing is says nothing.",
                json!({"type": "string", "pattern": patterns::any_etag()})
            ),
            idempotency_key("A retry with the same key has one effect and the same answer, for 24 h."),
            query("mode", "Permission bits of a new file, octal.", &json!({"type": "string", "pattern": patterns::OCTAL})),
            durability()
        ],
        "requestBody": {"required": false, "content": bytes()},
        "responses": {"200": done, "412": problem_reference(), "default": problem_reference()}
    })
}

fn remove() -> Value {
    json!({
        "operationId": "DeleteFileBytes", "tags": ["FileSystem"],
        "description": "Removes a file, symbolic link or empty directory.",
        "parameters": [
            if_match("Only if it has this ETag, or one of several; `*`: only if it exists. A weak one never fits."),
            durability()
        ],
        "responses": {
            "200": ok("Removed.", &reference("MutationResponse")), "412": problem_reference(), "default": problem_reference()
        }
    })
}
