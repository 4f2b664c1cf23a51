//! HTTP's own ways to say what some messages have a field for.
//!
//! | header | field | a message without it |
//! |---|---|---|
//! | `Idempotency-Key` | `request_id` | ignores it: its method does the same however often it is called |
//! | `Prefer: wait=N` | `wait_seconds` | ignores it, as every preference may be |
//! | `If-Match` | `precondition.if_etag`, `etag`, `session.etag` | refuses it: a condition that is not checked is no condition |
//! | `If-None-Match: *` | `precondition.if_absent` | refuses it unless it only reads |
//!
//! Who says a field in the body or the query and in a header must say the same in both, and that holds for `""`, `false` and `0`, too: a
//! value that was written down is no absent one (`null` is, as everywhere in JSON). A preference is no such word: the field counts, and what
//! cannot be read or met of it is ignored, as RFC 7240 §2 asks for.

use super::etags::{Etags, header_text};
use super::lists::{pair, parts};
use super::shape::{Kind, Shape, invalid};
use afs_types::{Error, Result, limits};
use axum::http::{HeaderMap, HeaderName, header};
use serde_json::{Map, Value};

/// Adds what the headers say; a field that is there already must say the same.
pub(super) fn take(
    shape: &'static Shape,
    headers: &HeaderMap,
    fields: &mut Map<String, Value>,
) -> Result<()> {
    if shape.field("request_id").is_some()
        && let Some(key) = idempotency_key(headers)?
    {
        put(fields, "idempotency-key", "request_id", Value::String(key))?;
    }
    if shape.field("wait_seconds").is_some()
        && let Some(seconds) = wait(headers)
    {
        // A preference: what the request itself says comes first.
        fields.entry("wait_seconds").or_insert(Value::from(seconds));
    }
    if let Some(etags) = Etags::of(headers, &header::IF_MATCH)? {
        if_match(shape, &etags, fields)?;
    }
    match Etags::of(headers, &header::IF_NONE_MATCH)? {
        Some(Etags::Any) if shape.field("precondition").is_some() => {
            put_in(fields, "precondition", "if-none-match", "if_absent", Value::Bool(true))
        }
        // That it is none of no tags is always so.
        Some(Etags::List(list)) if list.is_empty() => Ok(()),
        Some(_) if !is_read(shape) => Err(invalid("if-none-match", "no such precondition on this method")),
        _ => Ok(()),
    }
}

fn if_match(shape: &'static Shape, etags: &Etags, fields: &mut Map<String, Value>) -> Result<()> {
    let is_guarded = shape.field("precondition").is_some();
    let in_session = shape.field("session").is_some_and(|f| matches!(f.kind, Kind::Message(_)));
    if !is_guarded && !in_session && shape.field("etag").is_none() {
        return Err(invalid("if-match", "no such precondition on this method"));
    }
    let tags = Value::String(etags.for_change()?);
    match etags {
        _ if is_guarded => put_in(fields, "precondition", "if-match", "if_etag", tags),
        Etags::Any => Ok(()), // it must exist, and it must anyway
        Etags::List(list) if list.len() > 1 => Err(invalid("if-match", "one entity tag")),
        Etags::List(_) if in_session => put_in(fields, "session", "if-match", "etag", tags),
        Etags::List(_) => put(fields, "if-match", "etag", tags),
    }
}

/// Messages of methods that read have nothing that a retry could do twice, and no precondition.
fn is_read(shape: &Shape) -> bool {
    ["Get", "List", "Stat", "Read", "Glob", "Grep", "Diff", "Check"]
        .iter()
        .any(|verb| shape.name.starts_with(verb))
}

/// The key that makes a retry one; none if there is none. An empty one would be no key, without saying so.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let name = HeaderName::from_static("idempotency-key");
    let key = header_text(headers, &name)?;
    if key.as_ref().is_some_and(String::is_empty) {
        let want =
            format!("1 to {} printable ASCII characters, or no such header", limits::MAX_REQUEST_ID_BYTES);
        return Err(invalid(name.as_str(), want));
    }
    Ok(key)
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
    if set(fields, field, value) { Ok(()) } else { Err(contradiction(header, field)) }
}

/// The same for a field of a message in the message.
fn put_in(
    fields: &mut Map<String, Value>,
    outer: &str,
    header: &str,
    field: &str,
    value: Value,
) -> Result<()> {
    match set(object(fields, outer), field, value) {
        true => Ok(()),
        false => Err(contradiction(header, &format!("{outer}.{field}"))),
    }
}

/// False if the field is there with another value.
fn set(fields: &mut Map<String, Value>, field: &str, value: Value) -> bool {
    *fields.entry(field).or_insert_with(|| value.clone()) == value
}

fn contradiction(header: &str, field: &str) -> Error {
    invalid(header, format!("the same as `{field}`, or only one of them"))
}

/// The seconds of `wait=N` among other preferences, at most as many as one call waits. The first one counts.
fn wait(headers: &HeaderMap) -> Option<u64> {
    let texts = headers.get_all(HeaderName::from_static("prefer")).iter().filter_map(|v| v.to_str().ok());
    let preferences =
        texts.flat_map(|text| parts(text, b',')).filter_map(|p| parts(p, b';').first().copied());
    let (_, seconds) = preferences.filter_map(pair).find(|(name, _)| name.eq_ignore_ascii_case("wait"))?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
    // Too large for us is longer than we wait.
    is_number.then(|| seconds.parse().unwrap_or(u64::MAX).min(limits::MAX_WAIT_S))
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
            ("GetSessionRequest", &[("if-none-match", "\"7\"")], json!({})),
            ("EditFileRequest", &[("if-none-match", "")], json!({})),
            ("EditFileRequest", &[("if-match", "\"*\", \"b\"")], json!({"precondition": {"if_etag": "b"}})),
        ] {
            assert_eq!(taken(message, lines, json!({})).unwrap(), want, "{message} {lines:?}");
        }
    }

    #[test]
    fn preferences_are_met_as_far_as_they_can_be() {
        let most = limits::MAX_WAIT_S;
        for (lines, want) in [
            (&["respond-async, wait=7"][..], json!({"wait_seconds": 7})),
            (&["Wait = \"7\"; x=1"], json!({"wait_seconds": 7})),
            (&["respond-async", "wait=7"], json!({"wait_seconds": 7})),
            (&["wait=7, wait=9"], json!({"wait_seconds": 7})),
            (&["wait=0"], json!({"wait_seconds": 0})),
            (&["wait=100"], json!({"wait_seconds": most})),
            (&["wait=99999999999999999999999"], json!({"wait_seconds": most})),
            (&["wait=soon"], json!({})),
            (&["wait=soon, wait=9"], json!({})),
            (&["wait=-1"], json!({})),
            (&["wait=+1"], json!({})),
            (&["wait"], json!({})),
            (&["wait="], json!({})),
            (&["other=\"a, wait=9\""], json!({})),
            (&["other; wait=9"], json!({})),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("prefer", *line)).collect();
            assert_eq!(taken("GetSourceRequest", &lines, json!({})).unwrap(), want, "{lines:?}");
        }
        // What the request itself says counts, also if it is the default.
        for said in [0, 5] {
            let asked = json!({"wait_seconds": said});
            assert_eq!(taken("GetSourceRequest", &[("prefer", "wait=7")], asked.clone()).unwrap(), asked);
        }
    }

    #[test]
    fn what_is_said_twice_must_be_the_same_also_when_it_is_a_default() {
        let guarded = |fields: Value| json!({"precondition": fields});
        for (message, line, body, field) in [
            ("CreateSessionRequest", ("idempotency-key", "k"), json!({"request_id": ""}), "request_id"),
            ("DeleteSessionRequest", ("if-match", "\"7\""), json!({"etag": ""}), "etag"),
            ("UpdateSessionRequest", ("if-match", "\"7\""), json!({"session": {"etag": ""}}), "session.etag"),
            (
                "EditFileRequest",
                ("if-match", "\"a\""),
                guarded(json!({"if_etag": ""})),
                "precondition.if_etag",
            ),
            ("EditFileRequest", ("if-match", "*"), guarded(json!({"if_etag": "a"})), "precondition.if_etag"),
            (
                "EditFileRequest",
                ("if-none-match", "*"),
                guarded(json!({"if_absent": false})),
                "precondition.if_absent",
            ),
        ] {
            let error = taken(message, &[line], body.clone()).unwrap_err();
            assert!(error.message().contains(&format!("the same as `{field}`")), "{message} {body}: {error}");
            assert!(error.metadata().contains(&("field", line.0.to_owned())), "{error:?}");
        }
        for (message, line, body) in [
            ("CreateSessionRequest", ("idempotency-key", "k"), json!({"request_id": "k"})),
            ("DeleteSessionRequest", ("if-match", "\"7\""), json!({"etag": "7"})),
            ("EditFileRequest", ("if-match", "\"a\""), guarded(json!({"if_etag": "a", "if_absent": false}))),
            ("EditFileRequest", ("if-none-match", "*"), guarded(json!({"if_absent": true, "if_etag": ""}))),
        ] {
            assert_eq!(taken(message, &[line], body.clone()).unwrap(), body, "{message}");
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
            ("CreateSessionRequest", ("idempotency-key", ""), json!({}), "idempotency-key"),
            ("EditFileRequest", ("if-match", "W/\"a\""), json!({}), "if-match"),
            ("EditFileRequest", ("if-match", "\"*\""), json!({}), "if-match"),
            ("EditFileRequest", ("if-match", "\"a,b\""), json!({}), "if-match"),
            ("EditFileRequest", ("if-match", ""), json!({}), "if-match"),
            ("EditFileRequest", ("if-none-match", "\"*\""), json!({}), "if-none-match"),
            ("UpdateSessionRequest", ("if-match", "\"*\""), json!({}), "if-match"),
            ("GetSessionRequest", ("if-match", ""), json!({}), "if-match"),
        ] {
            let error = taken(message, &[lines], body).unwrap_err();
            let named = error.metadata().iter().any(|(k, v)| *k == "field" && v == field);
            assert!(named && error.message().starts_with(field), "{message} {lines:?}: {error}");
        }
    }
}
