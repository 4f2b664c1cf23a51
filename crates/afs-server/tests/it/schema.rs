//! As much of JSON Schema as the OpenAPI document uses, and answers held against it.
//!
//! A keyword that is not known here fails the test: nothing of the document is left out silently.

use crate::client::Answer;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(afs_proto::openapi_json()).unwrap());

const OF_OBJECTS: [&str; 6] =
    ["required", "minProperties", "maxProperties", "propertyNames", "properties", "additionalProperties"];
const OF_LISTS: [&str; 4] = ["items", "minItems", "maxItems", "uniqueItems"];

/// Headers that only some answers of a kind have.
const OPTIONAL_HEADERS: [&str; 1] = ["Retry-After"];

pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// What a reference points to, or the value itself.
pub(crate) fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(to) => resolve(document().pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{to}"))),
        None => value,
    }
}

/// Fails unless the document has such an answer.
pub(crate) fn check_answer(verb: &str, path: &str, answer: &Answer) {
    let what = format!("{verb} {path}: {} {:?}", answer.status, answer.body);
    let responses = &document()["paths"][path][verb.to_lowercase()]["responses"];
    let described = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
    let response = resolve(described);
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let schema = &resolve(header)["schema"];
        match answer.headers.get(name) {
            None => assert!(OPTIONAL_HEADERS.contains(&name.as_str()), "no {name}: {what}"),
            Some(value) => {
                let found = faults(schema, &of_text(schema, value.to_str().unwrap()));
                assert!(found.is_empty(), "{name} {value:?}: {found:?}: {what}");
            }
        }
    }
    let Some(content) = response["content"].as_object() else {
        assert!(answer.body.is_empty(), "a body that is not described: {what}");
        return;
    };
    let media = answer.headers["content-type"].to_str().unwrap().split(';').next().unwrap();
    let schema = &content.get(media).unwrap_or_else(|| panic!("no {media}: {what}"))["schema"];
    let text = || std::str::from_utf8(&answer.body).unwrap();
    let value = match media {
        "application/octet-stream" => return,
        "application/x-ndjson" => text().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).collect(),
        _ if media.ends_with("json") => serde_json::from_slice(&answer.body).unwrap(),
        _ => Value::from(text()),
    };
    let found = faults(schema, &value);
    assert!(found.is_empty(), "{found:#?}: {what}");
}

/// A header or a query parameter as the type of its schema, if it can be read so.
pub(crate) fn of_text(schema: &Value, text: &str) -> Value {
    let parsed = match schema["type"].as_str() {
        Some("integer") => text.parse::<i64>().ok().map(Value::from),
        Some("boolean") => text.parse::<bool>().ok().map(Value::from),
        Some("array") => Some(Value::Array(vec![of_text(&schema["items"], text)])),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

/// What is wrong with a value, each with its place.
pub(crate) fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check("", schema, value, &mut found);
    found
}

fn fits(schema: &Value, value: &Value) -> bool {
    faults(schema, value).is_empty()
}

fn check(at: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    for (keyword, want) in schema.as_object().unwrap_or_else(|| panic!("{at}: no schema: {schema}")) {
        let branches = || want.as_array().into_iter().flatten();
        let holds = match keyword.as_str() {
            "description" | "format" | "examples" | "contentEncoding" => true,
            "$ref" => {
                let to = document().pointer(want.as_str().unwrap().trim_start_matches('#'));
                check(at, to.unwrap_or_else(|| panic!("{want} leads nowhere")), value, found);
                true
            }
            "anyOf" => branches().any(|branch| fits(branch, value)),
            "oneOf" => branches().filter(|branch| fits(branch, value)).count() == 1,
            "not" => !fits(want, value),
            "enum" => branches().any(|one| one == value),
            "const" => want == value,
            "type" => match want {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "minimum" => value.as_f64().is_none_or(|n| n >= want.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= want.as_f64().unwrap()),
            "minLength" => value.as_str().is_none_or(|s| s.chars().count() >= size(want)),
            "maxLength" => value.as_str().is_none_or(|s| s.chars().count() <= size(want)),
            "pattern" => value.as_str().is_none_or(|s| is_match(want.as_str().unwrap(), s)),
            of if OF_OBJECTS.contains(&of) => {
                value.as_object().is_none_or(|members| check_object((at, of, want), schema, members, found))
            }
            of if OF_LISTS.contains(&of) => {
                value.as_array().is_none_or(|items| check_list((at, of, want), items, found))
            }
            other => panic!("{at}: the keyword {other} is not known here"),
        };
        if !holds {
            let shown: String = value.to_string().chars().take(200).collect();
            found.push(format!("{at}: {shown} against {keyword} {want}"));
        }
    }
}

type Asked<'a> = (&'a str, &'a str, &'a Value);

fn check_object(
    (at, keyword, want): Asked<'_>,
    schema: &Value,
    members: &Map<String, Value>,
    found: &mut Vec<String>,
) -> bool {
    let known = |name: &String| schema["properties"].get(name).is_some();
    match keyword {
        "required" => {
            want.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }
        "minProperties" => members.len() >= size(want),
        "maxProperties" => members.len() <= size(want),
        "propertyNames" => members.keys().all(|name| fits(want, &Value::from(name.as_str()))),
        "properties" => {
            for (name, value) in members {
                if let Some(schema) = want.get(name) {
                    check(&format!("{at}.{name}"), schema, value, found);
                }
            }
            true
        }
        "additionalProperties" => match want {
            Value::Bool(may) => *may || members.keys().all(known),
            schema => {
                let others = members.iter().filter(|(name, _)| !known(name));
                others.for_each(|(name, value)| check(&format!("{at}.{name}"), schema, value, found));
                true
            }
        },
        other => panic!("{other} is not of objects"),
    }
}

fn check_list((at, keyword, want): Asked<'_>, items: &[Value], found: &mut Vec<String>) -> bool {
    match keyword {
        "minItems" => items.len() >= size(want),
        "maxItems" => items.len() <= size(want),
        "uniqueItems" => items.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() == items.len(),
        "items" => {
            for (n, item) in items.iter().enumerate() {
                check(&format!("{at}[{n}]"), want, item, found);
            }
            true
        }
        other => panic!("{other} is not of lists"),
    }
}

fn size(limit: &Value) -> usize {
    usize::try_from(limit.as_u64().unwrap()).unwrap()
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

fn is_match(pattern: &str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap();
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    regex.is_match(text)
}

#[test]
fn the_check_can_fail() {
    use serde_json::json;
    let schema = json!({"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
        "a": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
        "b": {"type": "array", "items": {"type": "string", "pattern": "^x", "maxLength": 2}, "minItems": 1, "uniqueItems": true},
        "c": {"oneOf": [{"required": ["d"]}, {"required": ["e"]}]},
        "f": {"anyOf": [{"enum": ["g"]}, {"type": "null"}]},
        "h": {"type": "object", "maxProperties": 1, "propertyNames": {"minLength": 1}, "additionalProperties": {"type": "boolean"}}
    }});
    for good in [
        json!({"a": 1}),
        json!({"a": null, "b": ["x", "xy"], "c": {"d": 1}, "f": "g"}),
        json!({"a": 9.0, "f": null, "h": {"i": true}}),
    ] {
        assert_eq!(faults(&schema, &good), Vec::<String>::new(), "{good}");
    }
    for bad in [
        json!([]),
        json!({}),
        json!({"a": 1, "z": 1}),
        json!({"a": "1"}),
        json!({"a": 10}),
        json!({"a": -1}),
        json!({"a": 1.5}),
        json!({"a": 1, "b": []}),
        json!({"a": 1, "b": ["x", "x"]}),
        json!({"a": 1, "b": ["xyz"]}),
        json!({"a": 1, "b": ["y"]}),
        json!({"a": 1, "c": {}}),
        json!({"a": 1, "c": {"d": 1, "e": 1}}),
        json!({"a": 1, "f": "h"}),
        json!({"a": 1, "h": {"": true}}),
        json!({"a": 1, "h": {"i": 1}}),
        json!({"a": 1, "h": {"i": true, "j": true}}),
    ] {
        assert!(!faults(&schema, &bad).is_empty(), "{bad}");
    }
    let uint64 = json!({"$ref": "#/components/schemas/Uint64"});
    assert!(faults(&uint64, &json!("7")).is_empty() && !faults(&uint64, &json!(7)).is_empty());
}
