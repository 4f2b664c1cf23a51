//! What the fields of a request message are, and the check of JSON and query values against it.
//!
//! Guarantees: after [`Shape::check`] every field is known, of its type and in its range, under its proto name; an
//! error names the wrong field by its path, e.g. `changes[3].write.mode`.
//! Deliberately absent: meaning. That an id is well formed, or a path valid, is decided by the service.

use super::number::integer;
use afs_types::{Error, Reason, Result};
use serde_json::{Map, Number, Value};

/// The fields of a message.
#[derive(Debug)]
pub struct Shape {
    /// Message name.
    pub name: &'static str,
    /// In order of the definition.
    pub fields: &'static [Field],
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// As in the proto file; what we write.
    pub name: &'static str,
    /// lowerCamelCase; accepted too.
    pub json_name: &'static str,
    /// How many values.
    pub many: Many,
    /// The type of one value.
    pub kind: Kind,
    /// The oneof of the message that it is a member of.
    pub oneof: Option<&'static str>,
}

/// How many values a field has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Many {
    /// One, or none.
    One,
    /// A list.
    List,
    /// An object with any keys.
    Map,
}

/// The type of a value.
#[derive(Debug)]
#[allow(missing_docs)] // the types of proto3
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    FieldMask,
    /// Names and numbers.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Shape),
}

/// A field that is wrong; `want` says what would be right.
pub(crate) fn invalid(field: &str, want: impl std::fmt::Display) -> Error {
    let field: String = field.chars().take(200).collect();
    Error::new(Reason::InvalidArgument, format!("{field}: want {want}")).with("field", field)
}

impl Shape {
    /// The field with this name, in either spelling.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name || f.json_name == name)
    }

    /// Checks a JSON object and brings it into its canonical form.
    pub fn check(&'static self, object: &mut Map<String, Value>) -> Result<()> {
        self.check_at("", object)
    }

    fn check_at(&'static self, at: &str, object: &mut Map<String, Value>) -> Result<()> {
        for (name, mut value) in std::mem::take(object) {
            let path = join(at, &name);
            let field = self.field(&name).ok_or_else(|| self.unknown(&path))?;
            if value.is_null() {
                continue; // null is the default, as if the field were not there
            }
            field.check(&path, &mut value)?;
            self.check_alone(&path, field, object)?;
            if object.insert(field.name.to_owned(), value).is_some() {
                return Err(invalid(&path, "the field once, in one spelling"));
            }
        }
        Ok(())
    }

    /// Of the members of a oneof at most one may be there.
    fn check_alone(&self, path: &str, field: &Field, given: &Map<String, Value>) -> Result<()> {
        let Some(oneof) = field.oneof else { return Ok(()) };
        let members = self.fields.iter().filter(|f| f.oneof == Some(oneof)).map(|f| f.name);
        match members.clone().find(|name| *name != field.name && given.contains_key(*name)) {
            None => Ok(()),
            Some(other) => {
                let members: Vec<_> = members.collect();
                Err(invalid(path, format!("only one of {}: `{other}` is given, too", members.join(", "))))
            }
        }
    }

    fn unknown(&self, path: &str) -> Error {
        let names: Vec<_> = self.fields.iter().map(|f| f.name).collect();
        let known =
            if names.is_empty() { "no fields".to_owned() } else { format!("one of {}", names.join(", ")) };
        let shown: String = path.chars().take(200).collect();
        Error::new(Reason::InvalidArgument, format!("{shown}: {} has no such field: want {known}", self.name))
            .with("field", shown)
    }

    /// Adds query parameters: text becomes the field's type, a repeated parameter a list.
    pub(crate) fn take_query(
        &'static self,
        into: &mut Map<String, Value>,
        pairs: Vec<(String, String)>,
    ) -> Result<()> {
        for (name, text) in pairs {
            let field = self.field(&name).ok_or_else(|| self.unknown(&name))?;
            let place = match (field.many, into.get(field.name)) {
                (Many::List, Some(Value::Array(list))) => format!("{name}[{}]", list.len()),
                (Many::List, _) => format!("{name}[0]"),
                _ => name.clone(),
            };
            let mut value = field.kind.value_of(&place, text)?;
            field.kind.check(&place, &mut value)?;
            self.check_alone(&name, field, into)?;
            match (field.many, into.get_mut(field.name)) {
                (Many::Map, _) => return Err(invalid(&name, "a JSON body: it cannot be a query parameter")),
                (Many::List, Some(Value::Array(list))) => list.push(value),
                (Many::List, _) => {
                    into.insert(field.name.to_owned(), Value::Array(vec![value]));
                }
                (Many::One, Some(_)) => return Err(invalid(&name, "one value")),
                (Many::One, None) => {
                    into.insert(field.name.to_owned(), value);
                }
            }
        }
        Ok(())
    }
}

impl Field {
    fn check(&self, path: &str, value: &mut Value) -> Result<()> {
        match (self.many, value) {
            (Many::One, value) => self.kind.check(path, value),
            (Many::List, Value::Array(list)) => {
                list.iter_mut().enumerate().try_for_each(|(i, v)| self.kind.check(&format!("{path}[{i}]"), v))
            }
            (Many::Map, Value::Object(map)) => {
                map.iter_mut().try_for_each(|(key, v)| self.kind.check(&format!("{path}[{key:?}]"), v))
            }
            (Many::List, _) => Err(invalid(path, "a list")),
            (Many::Map, _) => Err(invalid(path, "an object")),
        }
    }
}

impl Kind {
    /// The JSON value that a query parameter stands for.
    fn value_of(&self, path: &str, text: String) -> Result<Value> {
        match self {
            Self::Bool => match text.as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(invalid(path, "true or false")),
            },
            Self::Double => text.parse().map(Value::Number).map_err(|_| invalid(path, "a number")),
            Self::Message(_) => Err(invalid(path, "a JSON body: it cannot be a query parameter")),
            _ => Ok(Value::String(text)),
        }
    }

    fn check(&self, path: &str, value: &mut Value) -> Result<()> {
        let ok = |good: bool, want: &str| if good { Ok(()) } else { Err(invalid(path, want)) };
        match self {
            Self::Bool => ok(value.is_boolean(), "true or false"),
            Self::Double => ok(value.is_number(), "a number"),
            Self::String => ok(value.is_string(), "a string"),
            Self::Int32 => whole(path, value, i32::MIN.into(), i32::MAX.into()),
            Self::Int64 => whole(path, value, i64::MIN.into(), i64::MAX.into()),
            Self::Uint32 => whole(path, value, 0, u32::MAX.into()),
            Self::Uint64 => whole(path, value, 0, u64::MAX.into()),
            Self::Bytes => ok(value.as_str().is_some_and(is_base64), "base64"),
            Self::Timestamp => {
                ok(parses::<pbjson_types::Timestamp>(value), "a time like 2026-01-31T12:00:00Z")
            }
            Self::Duration => ok(parses::<pbjson_types::Duration>(value), "a duration like 3.5s"),
            Self::FieldMask => field_mask(path, value),
            Self::Enum(values) => enum_value(path, value, values),
            Self::Message(shape) => match value {
                Value::Object(object) => shape.check_at(path, object),
                _ => Err(invalid(path, "an object")),
            },
        }
    }
}

/// Integers may be numbers or, as 64-bit ones are written, strings. A number that is no integer here was none, or is beyond 64 bits: the
/// parser of bodies keeps every other one exact, however it is written.
fn whole(path: &str, value: &mut Value, min: i128, max: i128) -> Result<()> {
    let number = match &*value {
        Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)),
        Value::String(text) => integer(text),
        _ => None,
    };
    let number = number.filter(|n| (min..=max).contains(n));
    let number = number.ok_or_else(|| invalid(path, format!("an integer from {min} to {max}")))?;
    *value = Value::Number(match u64::try_from(number) {
        Ok(n) => Number::from(n),
        Err(_) => Number::from(number as i64), // checked against `min` above
    });
    Ok(())
}

fn enum_value(path: &str, value: &mut Value, values: &[(&'static str, i32)]) -> Result<()> {
    let found = match &*value {
        Value::String(text) => {
            values.iter().find(|(name, number)| name == text || number.to_string() == *text)
        }
        Value::Number(n) => values.iter().find(|(_, number)| n.as_i64() == Some(i64::from(*number))),
        _ => None,
    };
    let names = || values.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let (name, _) = found.ok_or_else(|| invalid(path, format!("one of {}", names())))?;
    *value = Value::String((*name).to_owned());
    Ok(())
}

/// Canonical JSON writes a mask as one text; the message has a list.
fn field_mask(path: &str, value: &mut Value) -> Result<()> {
    let text = value.as_str().ok_or_else(|| invalid(path, "field names joined by commas"))?;
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    *value = serde_json::json!({"paths": names.map(snake_case).collect::<Vec<_>>()});
    Ok(())
}

fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let known = body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'));
    known && text.len() - body.len() <= 2 && body.len() % 4 != 1
}

fn parses<T: serde::de::DeserializeOwned>(value: &Value) -> bool {
    value.is_string() && serde_json::from_value::<T>(value.clone()).is_ok()
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
