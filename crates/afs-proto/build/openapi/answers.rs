//! What is the same in many answers: problems, and headers.

use super::keywords::reference;
use serde_json::{Value, json};

/// A JSON answer.
pub(crate) fn ok(text: &str, schema: &Value) -> Value {
    json!({"description": text, "content": {"application/json": {"schema": schema}}})
}

pub(crate) fn problem_reference() -> Value {
    json!({"$ref": "#/components/responses/Problem"})
}

/// A problem, as one of several contents of an answer.
pub(crate) fn problem_content() -> Value {
    json!({"schema": reference("Problem")})
}

pub(crate) fn responses() -> Value {
    json!({"Problem": {
        "description": "What went wrong, where, and what to do next.",
        "headers": headers_of(&["Retry-After"]),
        "content": {"application/problem+json": problem_content()}
    }})
}

/// References to headers that an answer has.
pub(crate) fn headers_of(names: &[&str]) -> Value {
    let of = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    Value::Object(names.iter().map(of).collect())
}

pub(crate) fn headers() -> Value {
    let header = |text: &str, schema: Value| json!({"description": text, "schema": schema});
    let etag = json!({"type": "string", "pattern": "^\"[^\"]+\"$"});
    let date = "^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$";
    json!({
        "ETag": header("The entity tag of the file, strong.", etag),
        "Last-Modified": header("When the file was changed, in seconds. Conditions by date are not checked.", json!({"type": "string", "pattern": date})),
        "Accept-Ranges": header("Ranges are served.", json!({"type": "string", "const": "bytes"})),
        "Cache-Control": header("A cache has to ask each time.", json!({"type": "string", "const": "no-cache"})),
        "Content-Length": header("Bytes of the answer; of HEAD, of the file.", json!({"type": "integer", "minimum": 0})),
        "Content-Range": header("Which bytes of how many; `bytes */N`: the file has N, and none of those.", json!({"type": "string", "pattern": "^bytes ([0-9]+-[0-9]+|\\*)/[0-9]+$"})),
        "Retry-After": header("When a retry may work, in seconds, if a retry is the way out.", json!({"type": "integer", "minimum": 1}))
    })
}

/// The body of every error.
pub(crate) fn problem() -> Value {
    let text = json!({"type": "string"});
    let name = |text: &str| json!({"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$", "description": text});
    json!({
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "title", "status", "detail", "code", "reason", "metadata", "violations", "next_steps"],
        "properties": {
            "type": text, "title": text,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": text,
            "instance": {"type": "string", "description": "Path of the request; an error inside of a stream has none."},
            "code": name("gRPC code."),
            "reason": name("Precise cause, upper snake case."),
            "metadata": {"type": "object", "additionalProperties": text, "description": "Facts that programs can read."},
            "violations": {"type": "array", "description": "The fields that are wrong.", "items": {
                "type": "object", "required": ["field", "description"], "properties": {"field": text, "description": text}
            }},
            "next_steps": {"type": "array", "items": text, "minItems": 1},
            "retry_after_ms": {"type": "integer", "minimum": 0, "description": "When a retry may work, if a retry is the way out."}
        }
    })
}

/// The last line of a stream that broke off.
pub(crate) fn stream_error() -> Value {
    json!({
        "type": "object", "description": "The last line of a stream that broke off.",
        "required": ["error"], "properties": {"error": reference("Problem")}, "additionalProperties": false
    })
}
