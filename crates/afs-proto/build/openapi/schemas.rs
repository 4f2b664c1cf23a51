//! Messages as schemas, of three kinds: a JSON body, a query, an answer.
//!
//! Guarantees: an answer of the server fits its schema, and names exactly what is there. What a schema of a request allows is refused only
//! for a reason that it cannot say. A message that is both has two schemas, the one of requests called `...Input`: there, `null` stands for
//! a field that is not set, numbers may be text and text may be numbers, and enumerations have numbers too.

use super::keywords::{choice, described, number, or_null, reference, wide_number, with};
use super::patterns;
use super::rules::{self, Rule, Rules};
use super::tables;
use crate::AnyError;
use crate::http::{Route, comment};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Body,
    /// Text, of which `null` is none.
    Query,
    Answer,
}

/// All schemas so far, by name.
pub(crate) struct Schemas {
    pub(crate) all: BTreeMap<String, Value>,
    pub(crate) requests: Rules,
    answers: Rules,
    /// Names of what is in requests and in answers.
    both: BTreeSet<String>,
}

impl Schemas {
    pub(crate) fn of(routes: &[Route]) -> Self {
        let (mut asked, mut answered) = (BTreeSet::new(), BTreeSet::new());
        for route in routes {
            reach(&route.method.input(), &mut asked);
            reach(&route.method.output(), &mut answered);
        }
        Self {
            all: BTreeMap::new(),
            requests: tables::requests(),
            answers: tables::answers(),
            both: asked.intersection(&answered).cloned().collect(),
        }
    }

    /// Rules that no field has.
    pub(crate) fn unused_rules(&self) -> Vec<&'static str> {
        [self.requests.unused(), self.answers.unused()].concat()
    }

    /// The body of a request, which has the fields that the path does not hold; and whether there has to be one.
    pub(crate) fn body(
        &mut self,
        input: &MessageDescriptor,
        in_path: &[&str],
    ) -> Result<(Value, bool), AnyError> {
        let fields: Vec<_> = input.fields().filter(|f| !in_path.contains(&f.name())).collect();
        let schema = self.object(input, &fields, Place::Body)?;
        let is_required = schema.get("required").is_some();
        self.all.insert(input.name().to_owned(), schema);
        Ok((reference(input.name()), is_required))
    }

    pub(crate) fn message(&mut self, message: &MessageDescriptor, place: Place) -> Result<Value, AnyError> {
        let request = place != Place::Answer;
        match message.full_name() {
            "google.protobuf.Timestamp" if request => {
                return Ok(json!({"type": "string", "format": "date-time", "pattern": patterns::time()}));
            }
            "google.protobuf.Timestamp" => return Ok(json!({"type": "string", "format": "date-time"})),
            "google.protobuf.Duration" => {
                return Ok(json!({"type": "string", "pattern": patterns::duration(), "examples": ["3.5s"]}));
            }
            "google.protobuf.FieldMask" => {
                return Ok(json!({"type": "string", "examples": ["display_name,labels"]}));
            }
            "google.protobuf.Empty" => return Ok(json!({"type": "object", "additionalProperties": false})),
            _ => {}
        }
        let name = self.name(message.name(), message.full_name(), place);
        if !self.all.contains_key(&name) {
            self.all.insert(name.clone(), Value::Null); // keeps recursion finite
            let fields: Vec<_> = message.fields().collect();
            let schema = self.object(message, &fields, place)?;
            self.all.insert(name.clone(), schema);
        }
        Ok(reference(&name))
    }

    fn name(&self, name: &str, full_name: &str, place: Place) -> String {
        let is_input = place != Place::Answer && self.both.contains(full_name);
        if is_input { format!("{name}Input") } else { name.to_owned() }
    }

    fn object(
        &mut self,
        message: &MessageDescriptor,
        fields: &[FieldDescriptor],
        place: Place,
    ) -> Result<Value, AnyError> {
        let file = message.parent_file();
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in fields {
            let (schema, is_required) = self.field(field, place)?;
            if is_required {
                required.push(field.name());
            }
            properties.insert(field.name().into(), described(schema, &comment(&file, field.path())));
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        for group in message.oneofs().filter(|group| !group.is_synthetic()) {
            let names: Vec<String> = group.fields().map(|f| f.name().to_owned()).collect();
            if let Some(choice) = choice(&names, rules::needs_one(group.full_name())) {
                schema["oneOf"] = choice;
            }
        }
        if let (true, Some(both)) = (place != Place::Answer, rules::exclusions(message.name())) {
            schema["not"] = both;
        }
        Ok(described(schema, &comment(&file, message.path())))
    }

    /// The schema of a field, and whether it has to be there.
    pub(crate) fn field(&mut self, field: &FieldDescriptor, place: Place) -> Result<(Value, bool), AnyError> {
        let rule = self.rule(field, place)?;
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        let one = self.kind(&kind, &rule, place)?;
        let value = match () {
            () if field.is_map() => with(json!({"type": "object", "additionalProperties": one}), &rule.many),
            () if field.is_list() => with(json!({"type": "array", "items": one}), &rule.many),
            () => one,
        };
        let is_single = field.kind().as_message().is_some() && !field.is_list() && !field.is_map();
        let can_miss = is_single || field.containing_oneof().is_some();
        let is_required = rule.is_required || (place == Place::Answer && !can_miss);
        let nullable = place == Place::Body && !is_required;
        Ok((if nullable { or_null(value) } else { value }, is_required))
    }

    fn rule(&mut self, field: &FieldDescriptor, place: Place) -> Result<Rule, AnyError> {
        let message = field.parent_message();
        if place == Place::Answer {
            return Ok(self.answers.find(message.name(), field.name()).unwrap_or_default());
        }
        let needs_none =
            field.kind() == Kind::Bool || field.containing_oneof().is_some_and(|g| !g.is_synthetic());
        match self.requests.find(message.name(), field.name()) {
            None if !needs_none => Err(format!(
                "{} has no rule in build/openapi/tables.rs: say what the server checks, or any()",
                field.full_name()
            )
            .into()),
            rule => Ok(rule.unwrap_or_default()),
        }
    }

    fn kind(&mut self, kind: &Kind, rule: &Rule, place: Place) -> Result<Value, AnyError> {
        let schema = match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes if place == Place::Answer => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Bytes => {
                json!({"type": "string", "contentEncoding": "base64", "pattern": patterns::base64()})
            }
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Uint32 | Kind::Fixed32 => number(rule.most.unwrap_or(u32::MAX.into()), place),
            // Where a limit is set, less than zero is beyond it too.
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => match rule.most {
                Some(most) => number(most, place),
                None => {
                    json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
                }
            },
            Kind::Uint64 | Kind::Fixed64 => self.wide(rule.most, place),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "format": "int64", "pattern": "^(0|-?[1-9][0-9]{0,18})$"})
            }
            Kind::Enum(e) => self.enumeration(e, rule, place),
            Kind::Message(m) => self.message(m, place)?,
        };
        Ok(with(schema, &rule.one))
    }

    /// A number of 64 bits. All of them without a bound of their own are one schema: the expression is long.
    fn wide(&mut self, most: Option<u64>, place: Place) -> Value {
        if let Some(most) = most {
            return wide_number(most, place);
        }
        let name = if place == Place::Body { "Uint64Input" } else { "Uint64" };
        let text = "A number of 64 bits, as text, which no reader of JSON rounds.";
        self.all.entry(name.to_owned()).or_insert_with(|| described(wide_number(u64::MAX, place), text));
        reference(name)
    }

    fn enumeration(&mut self, e: &EnumDescriptor, rule: &Rule, place: Place) -> Value {
        let has_zero =
            if place == Place::Answer { rules::can_be_unspecified(e.name()) } else { !rule.is_named };
        let values: Vec<_> = e.values().filter(|v| has_zero || v.number() != 0).collect();
        let mut known: Vec<Value> = values.iter().map(|v| v.name().into()).collect();
        if place == Place::Body {
            known.extend(values.iter().map(|v| Value::from(v.number())));
        }
        let kind = if place == Place::Body { json!(["string", "integer"]) } else { json!("string") };
        let schema = json!({"type": kind, "enum": known});
        if rule.is_named || place == Place::Query {
            return schema;
        }
        let name = self.name(e.name(), e.full_name(), place);
        self.all.insert(name.clone(), described(schema, &comment(&e.parent_file(), e.path())));
        reference(&name)
    }
}

/// Names of all messages and enumerations in a message.
fn reach(message: &MessageDescriptor, found: &mut BTreeSet<String>) {
    if !found.insert(message.full_name().to_owned()) {
        return;
    }
    for field in message.fields() {
        match field.kind() {
            Kind::Message(child) => reach(&child, found),
            Kind::Enum(e) => {
                found.insert(e.full_name().to_owned());
            }
            _ => {}
        }
    }
}
