//! HTTP's own ways to say what some messages have a field for.
//!
//! | header | field | a message without it |
//! |---|---|---|
//! | `Idempotency-Key` | `request_id` | ignores it: its method does the same however often it is called |
//! | `Prefer: wait=N` | `wait_seconds` | ignores it, as every preference may be |
//! | `If-Match` | `precondition.if_etag`, `etag`, `session.etag` | refuses it: a condition that is not checked is no condition |
//! | `If-None-Match: *` | `precondition.if_absent` | refuses it unless it only reads |

use super::etags::{Etags, header_text};
use super::shape::{Kind, Shape, invalid};
use afs_types::{Error, Reason, Result};
use axum::http::{HeaderMap, HeaderName, header};
use serde_json::{Map, Value};

/// Adds what the headers say; a field that is there already must say the same.
pub(super) fn take(
    shape: &'static Shape,
    headers: &HeaderMap,
    fields: &mut Map<String, Value>,
) -> Result<()> {
    let key = HeaderName::from_static("idempotency-key");
    if shape.field("request_id").is_some()
        && let Some(key) = header_text(headers, &key)?
    {
        put(fields, "idempotency-key", "request_id", Value::String(key))?;
    }
    if shape.field("wait_seconds").is_some()
        && let Some(seconds) =
            header_text(headers, &HeaderName::from_static("prefer"))?.as_deref().and_then(wait)
    {
        // A preference: what the request itself says comes first.
        fields.entry("wait_seconds").or_insert(Value::from(seconds));
    }
    if let Some(etags) = Etags::of(headers, &header::IF_MATCH)? {
        if_match(shape, &etags, fields)?;
    }
    match Etags::of(headers, &header::IF_NONE_MATCH)? {
        Some(Etags::Any) if shape.field("precondition").is_some() => {
            put(object(fields, "precondition"), "if-none-match", "if_absent", Value::Bool(true))
        }
        Some(_) if !is_read(shape) => Err(invalid("if-none-match", "no such precondition on this method")),
        _ => Ok(()),
    }
}

fn if_match(shape: &'static Shape, etags: &Etags, fields: &mut Map<String, Value>) -> Result<()> {
    let strong = etags.strong().ok_or_else(|| {
        Error::new(Reason::EtagMismatch, "if-match: a weak entity tag is never enough for a change")
            .with("field", "if-match")
    })?;
    if shape.field("precondition").is_some() {
        return put(object(fields, "precondition"), "if-match", "if_etag", Value::String(strong));
    }
    let in_session = shape.field("session").is_some_and(|f| matches!(f.kind, Kind::Message(_)));
    if !in_session && shape.field("etag").is_none() {
        return Err(invalid("if-match", "no such precondition on this method"));
    }
    match etags {
        Etags::Any => Ok(()), // it must exist, and it must anyway
        Etags::List(list) if list.len() > 1 => Err(invalid("if-match", "one entity tag")),
        Etags::List(_) if in_session => {
            put(object(fields, "session"), "if-match", "etag", Value::String(strong))
        }
        Etags::List(_) => put(fields, "if-match", "etag", Value::String(strong)),
    }
}

/// Messages of methods that read have nothing that a retry could do twice, and no precondition.
fn is_read(shape: &Shape) -> bool {
    ["Get", "List", "Stat", "Read", "Glob", "Grep", "Diff", "Check"]
        .iter()
        .any(|verb| shape.name.starts_with(verb))
}

fn object<'f>(fields: &'f mut Map<String, Value>, name: &str) -> &'f mut Map<String, Value> {
    let value = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new()); // the check of the shape leaves objects only
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("made an object above"),
    }
}

fn put(fields: &mut Map<String, Value>, header: &str, field: &str, value: Value) -> Result<()> {
    match fields.get(field) {
        Some(other) if *other != value => {
            Err(invalid(header, format!("the same as `{field}`, or only one of them")))
        }
        _ => {
            fields.insert(field.to_owned(), value);
            Ok(())
        }
    }
}

/// The seconds of `wait=N` among other preferences.
fn wait(text: &str) -> Option<u32> {
    text.split([',', ';']).find_map(|part| part.trim().strip_prefix("wait=")?.trim_matches('"').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::ROUTES;
    use serde_json::json;

    fn taken(message: &str, lines: &[(&'static str, &'static str)], body: Value) -> Result<Value> {
        let shape = ROUTES.iter().map(|r| r.shape).find(|s| s.name == message).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let Value::Object(mut fields) = body else { panic!("{body}") };
        take(shape, &headers, &mut fields).map(|()| Value::Object(fields))
    }

    #[test]
    fn conditions_become_fields() {
        for (message, lines, want) in [
            (
                "EditFileRequest",
                &[("if-match", "\"a\", \"b\"")][..],
                json!({"precondition": {"if_etag": "a,b"}}),
            ),
            ("EditFileRequest", &[("if-match", "*")], json!({"precondition": {"if_etag": "*"}})),
            ("RemovePathRequest", &[("if-none-match", "*")], json!({"precondition": {"if_absent": true}})),
            ("DeleteSessionRequest", &[("if-match", "\"7\"")], json!({"etag": "7"})),
            ("UpdateSessionRequest", &[("if-match", "\"7\"")], json!({"session": {"etag": "7"}})),
            ("UpdateSessionRequest", &[("if-match", "*")], json!({})),
            ("CreateSessionRequest", &[("idempotency-key", "k")], json!({"request_id": "k"})),
            ("DeleteSessionRequest", &[("idempotency-key", "k")], json!({})),
            ("GetSourceRequest", &[("prefer", "respond-async, wait=7")], json!({"wait_seconds": 7})),
            ("GetSourceRequest", &[("prefer", "wait=soon")], json!({})),
            ("GetSessionRequest", &[("if-none-match", "\"7\"")], json!({})),
        ] {
            assert_eq!(taken(message, lines, json!({})).unwrap(), want, "{message} {lines:?}");
        }
    }

    #[test]
    fn conditions_that_would_not_be_checked_are_refused() {
        for (message, lines, body, field) in [
            ("CreateCheckpointRequest", ("if-match", "\"a\""), json!({}), "if-match"),
            ("GetSessionRequest", ("if-match", "\"a\""), json!({}), "if-match"),
            ("DeleteSessionRequest", ("if-match", "\"a\", \"b\""), json!({}), "if-match"),
            ("DeleteSessionRequest", ("if-match", "\"a\""), json!({"etag": "b"}), "if-match"),
            ("EditFileRequest", ("if-none-match", "\"a\""), json!({}), "if-none-match"),
            ("CreateSessionRequest", ("if-none-match", "*"), json!({}), "if-none-match"),
            ("CreateSessionRequest", ("idempotency-key", "a"), json!({"request_id": "b"}), "idempotency-key"),
            ("EditFileRequest", ("if-match", "W/\"a\""), json!({}), "if-match"),
        ] {
            let error = taken(message, &[lines], body).unwrap_err();
            let named = error.metadata().iter().any(|(k, v)| *k == "field" && v == field);
            assert!(named && error.message().starts_with(field), "{message} {lines:?}: {error}");
        }
    }
}
