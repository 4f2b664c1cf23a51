//! JSON bodies, strictly.
//!
//! Guarantees: a name that an object has twice is refused (which of the two would count?), and so is a body of more than
//! [`limits::MAX_MESSAGE_ELEMENTS`] objects, lists and values; the error names the place. Depth is bounded by the parser.

use super::shape::invalid;
use afs_types::{Error, Reason, Result, limits};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The members of a JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    let mut reading = Reading::default();
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let parsed = Node(&mut reading).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    match parsed {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid("body", "a JSON object")),
        Err(error) => Err(reading.refusal.unwrap_or_else(|| invalid("body", format!("JSON ({error})")))),
    }
}

#[derive(Default)]
struct Reading {
    /// Names and indices that lead to the current value.
    at: Vec<String>,
    count: usize,
    refusal: Option<Error>,
}

impl Reading {
    fn place(&self) -> String {
        let joined = self.at.join(".").replace(".[", "[");
        if joined.is_empty() { "body".into() } else { joined }
    }
}

/// The next value.
struct Node<'r>(&'r mut Reading);

impl Node<'_> {
    fn refuse<T, E: serde::de::Error>(&mut self, error: Error) -> Result<T, E> {
        self.0.refusal = Some(error);
        Err(E::custom("refused"))
    }

    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.0.count += 1;
        let most = limits::MAX_MESSAGE_ELEMENTS;
        if self.0.count <= most {
            return Ok(());
        }
        let place = self.0.place();
        let error =
            Error::new(Reason::MessageTooLarge, format!("{place}: a request has at most {most} elements"));
        self.refuse(error.with("field", place).with("limit", most.to_string()))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, from: D) -> Result<Value, D::Error> {
        self.count()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number without end"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.0.at.push(format!("[{}]", list.len()));
            let Some(item) = items.next_element_seed(Node(self.0))? else { break };
            self.0.at.pop();
            list.push(item);
        }
        self.0.at.pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.0.at.push(name.clone());
            if object.contains_key(&name) {
                let place: String = self.0.place().chars().take(200).collect();
                return self.refuse(invalid(&place, "the member once: a JSON object has it twice"));
            }
            let value = members.next_value_seed(Node(self.0))?;
            self.0.at.pop();
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_as_they_are() {
        let text = r#" {"a": [1, -2, 1.5, true, null, "\u00e9"], "b": {"c": {}}} "#;
        assert_eq!(
            Value::Object(object(text.as_bytes()).unwrap()),
            json!({"a": [1, -2, 1.5, true, null, "é"], "b": {"c": {}}})
        );
    }

    #[test]
    fn what_is_said_twice_or_too_often_is_named() {
        let refused = |text: &str| {
            let error = object(text.as_bytes()).unwrap_err();
            let field = error.metadata().iter().find(|(k, _)| *k == "field").unwrap().1.clone();
            (error.reason, field)
        };
        for (text, field) in [
            (r#"{"a": 1, "a": 1}"#, "a"),
            (r#"{"a": [{}, {"b": {"c": 1, "d": 2, "c": 3}}]}"#, "a[1].b.c"),
            (r#"{"a": 1} x"#, "body"),
            ("[1]", "body"),
            ("", "body"),
            (r#"{"a": 1e999}"#, "body"),
        ] {
            assert_eq!(refused(text), (Reason::InvalidArgument, field.to_owned()), "{text}");
        }
        let many = format!("{{\"changes\": [{}{{}}]}}", "{},".repeat(limits::MAX_MESSAGE_ELEMENTS));
        let (reason, field) = refused(&many);
        assert_eq!(reason, Reason::MessageTooLarge);
        assert!(field.starts_with("changes["), "{field}");
    }
}
