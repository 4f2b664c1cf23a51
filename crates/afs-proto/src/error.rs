//! Errors across gRPC: `google.rpc` details on the way out, the same [`Error`] on the way in.
//!
//! Guarantees: reason, message, facts and next step survive, up to [`MAX_TEXT_BYTES`] of each text: they travel in
//! HTTP/2 headers, whose size both ends bound. The cause (`source`) never leaves the server: log it before.

use afs_types::{Error, Kind, Reason};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of our `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "aetherfs";

/// Longest text of an error on the wire, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Most bytes of all facts of an error on the wire together.
const MAX_FACT_BYTES: usize = 3 << 10;

/// The gRPC status that carries an error.
pub fn to_status(error: &Error) -> Status {
    let message = cut(error.message());
    let mut details = ErrorDetails::new();
    let facts = facts(error);
    if let Some(field) = facts.get("field").filter(|_| error.reason.kind() == Kind::Invalid) {
        details.add_bad_request_violation(field.clone(), message);
    }
    details.set_error_info(error.reason.as_str(), DOMAIN, facts);
    details.add_help_link(cut(error.next_step()), help_urn(error.reason));
    if let Some(after) = retry_after(error.reason) {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code(error.reason), message, details)
}

fn facts(error: &Error) -> HashMap<String, String> {
    let mut left = MAX_FACT_BYTES;
    let mut facts = HashMap::new();
    for (key, value) in error.metadata() {
        let value = cut(value);
        let Some(rest) = left.checked_sub(key.len() + value.len()) else { continue };
        left = rest;
        facts.insert((*key).to_owned(), value.to_owned());
    }
    facts
}

/// The error that a status carries. Of a status that is not ours the code decides.
pub fn from_status(status: &Status) -> Error {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let reason =
        info.and_then(|info| Reason::from_wire(&info.reason)).unwrap_or_else(|| reason_of(status.code()));
    let mut error = Error::new(reason, status.message());
    if let Some(info) = info {
        let mut facts: Vec<_> = info.metadata.iter().collect();
        facts.sort();
        for (key, value) in facts {
            if let Some(key) = intern(key) {
                error = error.with(key, value.clone());
            }
        }
    }
    let step = details.help().and_then(|help| help.links.first()).map(|link| link.description.clone());
    match step {
        Some(step) if step != reason.next_step() => error.next(step),
        _ => error,
    }
}

/// A refusal of the transport, which knows no reasons, as one of ours; a status that has a reason stays as it is.
pub fn typed(status: Status) -> Status {
    if !status.details().is_empty() || status.code() == Code::Ok {
        return status;
    }
    let said = status.message();
    let refused =
        |reason, field: &'static str| Error::new(reason, format!("{field}: {said}")).with("field", field);
    let error = match status.code() {
        Code::OutOfRange if said.contains("length too large") => {
            let limit: String = said
                .rsplit("limit is: ")
                .next()
                .unwrap_or("")
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            refused(Reason::MessageTooLarge, "message").with("limit", limit)
        }
        // All that the transport itself calls a fault before a method of ours runs is the sender's.
        Code::Internal if said.contains("compress") => refused(Reason::InvalidArgument, "grpc-encoding"),
        Code::Internal => refused(Reason::InvalidArgument, "message"),
        Code::Unimplemented if said.contains("compress") => refused(Reason::Unsupported, "grpc-encoding"),
        Code::Unimplemented => {
            Error::new(Reason::Unsupported, if said.is_empty() { "no such method" } else { said })
        }
        _ => from_status(&status),
    };
    to_status(&error)
}

/// When a retry may work, if a retry is the way out.
pub(crate) fn retry_after(reason: Reason) -> Option<Duration> {
    match reason {
        Reason::QueueFull => Some(Duration::from_millis(200)),
        _ if reason.kind() == Kind::Unavailable => Some(Duration::from_secs(1)),
        _ => None,
    }
}

/// A name for the kind of error, not an address.
pub(crate) fn help_urn(reason: Reason) -> String {
    format!("urn:aetherfs:error:{}", reason.as_str())
}

/// The gRPC code of a reason.
pub(crate) fn code(reason: Reason) -> Code {
    match reason {
        Reason::OutOfRange => Code::OutOfRange,
        Reason::Unsupported => Code::Unimplemented,
        Reason::AlreadyExists => Code::AlreadyExists,
        Reason::EtagMismatch | Reason::RevisionMismatch | Reason::PromoteConflict => Code::Aborted,
        Reason::TimedOut => Code::DeadlineExceeded,
        Reason::Corrupt => Code::DataLoss,
        _ => match reason.kind() {
            Kind::Invalid => Code::InvalidArgument,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict => Code::FailedPrecondition,
            Kind::Denied => Code::PermissionDenied,
            Kind::Exhausted => Code::ResourceExhausted,
            Kind::Unavailable => Code::Unavailable,
            Kind::Internal => Code::Internal,
        },
    }
}

/// The nearest reason of a code that came without one (from tonic itself, or a proxy).
fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::InvalidArgument,
        Code::OutOfRange => Reason::OutOfRange,
        Code::NotFound => Reason::NotFound,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => Reason::PermissionDenied,
        Code::FailedPrecondition => Reason::WrongState,
        Code::Aborted => Reason::RevisionMismatch,
        Code::ResourceExhausted => Reason::QueueFull,
        Code::DeadlineExceeded | Code::Cancelled => Reason::TimedOut,
        Code::Unavailable => Reason::Unavailable,
        Code::Unimplemented => Reason::Unsupported,
        Code::DataLoss => Reason::Corrupt,
        Code::Internal | Code::Unknown | Code::Ok => Reason::Internal,
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// Keys of facts are static in [`Error`]; those of another version of the server are kept too, up to a bound.
fn intern(key: &str) -> Option<&'static str> {
    const MAX_KEYS: usize = 512;
    static KEYS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = keys.get(key) {
        return Some(known);
    }
    if keys.len() >= MAX_KEYS || key.len() > 64 {
        return None;
    }
    let leaked: &'static str = Box::leak(key.to_owned().into_boxed_str());
    keys.insert(leaked);
    Some(leaked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_both_ways() {
        for reason in Reason::ALL {
            let sent = Error::new(*reason, "größe: 5 of /a")
                .with("field", "size")
                .with("limit", "4")
                .next("do that");
            let back = from_status(&to_status(&sent));
            assert_eq!(back.reason, *reason);
            assert_eq!(back.message(), sent.message());
            assert_eq!(back.metadata(), sent.metadata());
            assert_eq!(back.next_step(), "do that");
            assert_eq!(from_status(&to_status(&Error::bare(*reason))).next_step(), reason.next_step());
        }
    }

    #[test]
    fn statuses_of_others_keep_their_kind() {
        let error = from_status(&Status::unavailable("connection refused"));
        assert_eq!((error.reason, error.message()), (Reason::Unavailable, "connection refused"));
        assert_eq!(from_status(&Status::unknown("?")).reason, Reason::Internal);
    }

    #[test]
    fn what_the_transport_says_gets_a_reason() {
        for (status, reason, fact) in [
            (
                Status::out_of_range(
                    "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
                ),
                Reason::MessageTooLarge,
                ("limit", "8"),
            ),
            (Status::internal("Missing request message."), Reason::InvalidArgument, ("field", "message")),
            (
                Status::unimplemented("Content is compressed with `x` which isn't supported"),
                Reason::Unsupported,
                ("field", "grpc-encoding"),
            ),
        ] {
            let error = from_status(&typed(status));
            assert_eq!(error.reason, reason);
            assert!(error.metadata().contains(&(fact.0, fact.1.to_owned())), "{error:?}");
        }
        assert_eq!(from_status(&typed(Status::unimplemented(""))).reason, Reason::Unsupported);
        let ours = to_status(&Error::bare(Reason::Internal));
        assert_eq!(from_status(&typed(ours)).reason, Reason::Internal, "a fault of ours stays one");
    }

    #[test]
    fn the_wire_form_is_bounded() {
        let long = "é".repeat(100_000);
        let mut error = Error::new(Reason::InvalidArgument, &long).next(&long);
        for _ in 0..100 {
            error = error.with("field", &long);
        }
        let details = to_status(&error).details().len();
        assert!(details < 8 << 10, "{details} bytes of details");
    }
}
