//! JSON bodies, strictly.
//!
//! Guarantees: a name that an object has twice is refused (which of the two would count?), and so is a body of more than
//! [`limits::MAX_MESSAGE_ELEMENTS`] objects, lists and values; the error names the place. Depth is bounded by the parser. Integers of 64 bits
//! are exact however they are written (`1e2`, `493.0`): the parser hands out binary fractions, so the text itself is looked at again.

use super::number::integer;
use super::shape::invalid;
use afs_types::{Error, Reason, Result, limits};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The members of a JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    let mut reading = Reading { numbers: Numbers(bytes), at: Vec::new(), count: 0, refusal: None };
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let parsed = Node(&mut reading).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    match parsed {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid("body", "a JSON object")),
        Err(error) => Err(reading.refusal.unwrap_or_else(|| invalid("body", format!("JSON ({error})")))),
    }
}

struct Reading<'b> {
    /// Those that are still to come.
    numbers: Numbers<'b>,
    /// Names and indices that lead to the current value.
    at: Vec<String>,
    count: usize,
    refusal: Option<Error>,
}

impl Reading<'_> {
    fn place(&self) -> String {
        let joined = self.at.join(".").replace(".[", "[");
        if joined.is_empty() { "body".into() } else { joined }
    }
}

/// The numbers of a JSON text as they are written, in order.
struct Numbers<'b>(&'b [u8]);

impl<'b> Iterator for Numbers<'b> {
    type Item = &'b str;

    /// What comes before has been parsed, so that it is JSON.
    fn next(&mut self) -> Option<&'b str> {
        let (mut in_text, mut is_escaped) = (false, false);
        let start = self.0.iter().position(|b| {
            match b {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = in_text,
                b'"' => in_text = !in_text,
                b'-' | b'0'..=b'9' => return !in_text,
                _ => {}
            }
            false
        })?;
        let rest = &self.0[start..];
        let goes_on = |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let (number, rest) = rest.split_at(rest.iter().position(|b| !goes_on(b)).unwrap_or(rest.len()));
        self.0 = rest;
        std::str::from_utf8(number).ok()
    }
}

/// The next value.
struct Node<'r, 'b>(&'r mut Reading<'b>);

impl Node<'_, '_> {
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

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, from: D) -> Result<Value, D::Error> {
        self.count()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
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
        self.0.numbers.next();
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.0.numbers.next();
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // An integer, as `-0` and `1e2` are, loses nothing as one; a sign of zero is nothing that a request has a use for.
        if let Some(whole) = self.0.numbers.next().and_then(integer).and_then(Number::from_i128) {
            return Ok(Value::Number(whole));
        }
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
    fn integers_are_exact_however_they_are_written() {
        let text = r#"{"1.0": [1.0, "2.0", "\\", 1e2, "\" 3.0 \\\" 4", 5], "2": {"-3": -0, "4e": 9007199254740993.0},
            "5": [9007199254740993, 18446744073709551615.0, -9223372036854775808.0, 0.5, 7.0]}"#;
        let big = (1_u64 << 53) + 1;
        assert_eq!(
            Value::Object(object(text.as_bytes()).unwrap()),
            json!({
                "1.0": [1, "2.0", "\\", 100, "\" 3.0 \\\" 4", 5],
                "2": {"-3": 0, "4e": big},
                "5": [big, u64::MAX, i64::MIN, 0.5, 7],
            })
        );
        // What is not one stays what it is, however near it comes, and so does what is beyond 64 bits.
        for near in ["9007199254740993.5", "1.00000000000000000001", "1e-400", "18446744073709551616", "1e30"]
        {
            let fields = object(format!("{{\"a\": {near}}}").as_bytes()).unwrap();
            assert!(fields["a"].is_f64(), "{near}: {fields:?}");
        }
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
