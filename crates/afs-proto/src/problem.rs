//! RFC 9457 problem details: the body of every HTTP error, and what `--json` prints on failure.

use crate::error::{code, help_urn, retry_after};
use afs_types::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One error as JSON.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A name of the reason, as a URI; not an address.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reason in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, to which object.
    pub detail: String,
    /// The request's path, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// gRPC code, e.g. `NOT_FOUND`.
    pub code: String,
    /// Precise cause, upper snake case.
    pub reason: String,
    /// Facts that programs can read.
    pub metadata: BTreeMap<String, String>,
    /// The fields that are wrong.
    pub violations: Vec<Violation>,
    /// What to do next.
    pub next_steps: Vec<String>,
    /// When a retry may work, if a retry is the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// One wrong field of a request.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, e.g. `changes[3].write.path`.
    pub field: String,
    /// What would be right.
    pub description: String,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let metadata: BTreeMap<String, String> =
            error.metadata().iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let field = metadata.get("field").filter(|_| error.reason.kind() == Kind::Invalid);
        let violation =
            field.map(|f| Violation { field: f.clone(), description: error.message().to_owned() });
        Self {
            kind: help_urn(error.reason),
            title: title(error.reason.as_str()),
            status: error.reason.http_status(),
            detail: error.message().to_owned(),
            instance: None,
            code: code_name(code(error.reason)).to_owned(),
            reason: error.reason.as_str().to_owned(),
            metadata,
            violations: violation.into_iter().collect(),
            next_steps: vec![error.next_step().to_owned()],
            retry_after_ms: retry_after(error.reason).map(|d| d.as_millis() as u64),
        }
    }
}

/// `SESSION_NOT_FOUND` as `Session not found`.
fn title(reason: &str) -> String {
    let words = reason.to_ascii_lowercase().replace('_', " ");
    words[..1].to_ascii_uppercase() + &words[1..]
}

fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_types::Reason;

    #[test]
    fn a_problem_says_what_where_and_what_next() {
        let error =
            Error::new(Reason::NameTooLong, "path: 300 bytes, the limit is 255").with("field", "path");
        let problem = Problem::from(&error);
        assert_eq!(
            (problem.status, problem.title.as_str(), problem.code.as_str()),
            (400, "Name too long", "INVALID_ARGUMENT")
        );
        assert_eq!(problem.violations[0].field, "path");
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
