//! How what the server checks beyond types is said and found: keywords of JSON Schema for each field.
//!
//! Guarantees: every field of a request that could have a rule has one, if only one of nothing, and every rule is of a field that exists: the
//! build fails otherwise. The rules themselves are in `tables.rs`.
//!
//! Deliberately absent: what two fields say together, but for the few of [`exclusions`].

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What holds of one field.
#[derive(Clone, Default)]
pub(crate) struct Rule {
    /// Of a request: its default is refused. Of an answer: it is always there, although it is a message.
    pub(crate) is_required: bool,
    /// Keywords of one value.
    pub(crate) one: Value,
    /// Keywords of the list or object of them.
    pub(crate) many: Value,
    /// The largest number.
    pub(crate) most: Option<u64>,
    /// Of an enumeration: the value that stands for none is refused.
    pub(crate) is_named: bool,
}

impl Rule {
    pub(crate) fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    /// Of a list, or an object with any keys.
    pub(crate) fn each(self, many: Value) -> Self {
        Self { many, ..self }
    }
}

/// What may not be said together: message, and a schema that must not fit.
pub(crate) fn exclusions(message: &str) -> Option<Value> {
    let said = json!({"type": "string", "minLength": 1});
    let (one, other, first) = match message {
        "ForkSessionRequest" => ("checkpoint_id", "commit_id", said.clone()),
        "PromoteRequest" => ("if_branch_absent", "if_branch_oid", json!({"const": true})),
        "Precondition" => ("if_absent", "if_etag", json!({"const": true})),
        _ => return None,
    };
    Some(json!({"required": [one, other], "properties": {one: first, other: said}}))
}

/// One of this group of fields must be there.
pub(crate) fn needs_one(group: &str) -> bool {
    ["aether.v1.SourceSpec.spec", "aether.v1.Change.op"].contains(&group)
}

/// Answers where the value that stands for none is one: in `SubmitChangesResponse`, a removed path has no type and no layer.
pub(crate) fn can_be_unspecified(enumeration: &str) -> bool {
    ["EntryType", "Layer"].contains(&enumeration)
}

/// The rules of one direction, and which of them have been used.
pub(crate) struct Rules {
    rules: BTreeMap<&'static str, Rule>,
    used: BTreeSet<&'static str>,
}

impl Rules {
    pub(crate) fn of(rules: Vec<(&'static str, Rule)>) -> Self {
        Self { rules: rules.into_iter().collect(), used: BTreeSet::new() }
    }

    /// The rule of a field: its own, that of its message, or that of its name.
    pub(crate) fn find(&mut self, message: &str, field: &str) -> Option<Rule> {
        let keys = [format!("{message}.{field}"), format!("{message}.*"), format!("*.{field}")];
        let (key, rule) = keys.iter().find_map(|key| self.rules.get_key_value(key.as_str()))?;
        self.used.insert(key);
        Some(rule.clone())
    }

    /// Rules of nothing.
    pub(crate) fn unused(&self) -> Vec<&'static str> {
        self.rules.keys().filter(|key| !self.used.contains(*key)).copied().collect()
    }
}
