//! Small schemas and their parts. Pure.

use super::patterns;
use super::schemas::Place;
use serde_json::{Map, Value, json};

/// One member of a group at most, or exactly one. None: nothing to choose from.
pub(crate) fn choice(names: &[String], needs_one: bool) -> Option<Value> {
    let nothing = json!({"type": "null"});
    let said = |name: &String| {
        let not_null = Map::from_iter([(name.clone(), json!({"not": nothing}))]);
        json!({"required": [name], "properties": not_null})
    };
    let mut branches: Vec<Value> = names.iter().map(said).collect();
    if !needs_one {
        if names.len() < 2 {
            return None;
        }
        let none: Map<String, Value> = names.iter().map(|name| (name.clone(), nothing.clone())).collect();
        branches.push(json!({"properties": none}));
    }
    Some(branches.into())
}

/// A number of 32 bits from 0 on. In JSON it may also come as text.
pub(crate) fn number(most: u64, place: Place) -> Value {
    let mut schema = json!({"type": "integer", "minimum": 0, "maximum": most});
    if place == Place::Body {
        schema["type"] = json!(["integer", "string"]);
        schema["pattern"] = patterns::up_to(most).into();
    }
    schema
}

/// A number of 64 bits: text, or, in requests, a number too.
pub(crate) fn wide_number(most: u64, place: Place) -> Value {
    let mut schema = json!({"type": "string", "format": "uint64", "pattern": patterns::up_to(most)});
    if place == Place::Body {
        schema["type"] = json!(["string", "integer"]);
        schema["minimum"] = 0.into();
        schema["maximum"] = most.into();
    }
    schema
}

/// A schema with more keywords.
pub(crate) fn with(mut schema: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        schema[key] = value.clone();
    }
    schema
}

/// `null` is the same as not there.
pub(crate) fn or_null(mut schema: Value) -> Value {
    let Some(kind) = schema.get("type").filter(|_| schema.get("enum").is_none()).cloned() else {
        return json!({"anyOf": [schema, {"type": "null"}]});
    };
    let mut kinds = kind.as_array().cloned().unwrap_or_else(|| vec![kind]);
    kinds.push("null".into());
    schema["type"] = kinds.into();
    schema
}

pub(crate) fn described(mut value: Value, text: &str) -> Value {
    if !text.is_empty() {
        value["description"] = text.into();
    }
    value
}

pub(crate) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
