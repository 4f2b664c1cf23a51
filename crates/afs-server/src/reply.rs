//! From engine results to gRPC answers, and the checks that name the wrong field.

use afs_proto::to_status;
use afs_proto::v1;
use afs_types::{Error, Kind, RequestId, Result, SessionPath};
use tonic::{Response, Status};

/// What every method returns.
pub(crate) type Reply<T> = Result<Response<T>, Status>;

/// The status of an error. Faults of ours are logged here, with their cause, which no caller sees.
pub(crate) fn fail(error: Error) -> Status {
    if error.reason.kind() == Kind::Internal {
        tracing::error!(?error, "a call failed");
    } else {
        tracing::debug!(?error, "a call was refused");
    }
    to_status(&error)
}

/// Turns an engine result into an answer.
pub(crate) fn reply<T, U>(result: Result<T>, wire: impl FnOnce(T) -> U) -> Reply<U> {
    result.map(|value| Response::new(wire(value))).map_err(fail)
}

/// Says which field a value was in.
pub(crate) fn field<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let mut named = Error::new(error.reason, format!("{name}: {}", error.message()));
        for (key, value) in error.metadata().iter().filter(|(key, _)| *key != "field") {
            named = named.with(key, value.clone());
        }
        if error.next_step() != error.reason.next_step() {
            named = named.next(error.next_step());
        }
        named.with("field", name)
    })
}

/// None for the empty text, else the id.
pub(crate) fn optional<T>(
    name: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T>,
) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { field(name, parse(text)).map(Some) }
}

/// A path in its text form; the empty text is the root.
pub(crate) fn path(name: &str, text: &str) -> Result<SessionPath> {
    field(name, SessionPath::parse_text(text))
}

/// The path of something to change: one that was forgotten is not the root.
pub(crate) fn path_to_change(name: &str, text: &str) -> Result<SessionPath> {
    if text.is_empty() {
        return field(name, Err(Error::invalid("path", "a path; `/` is the root")));
    }
    path(name, text)
}

/// A request id, if there is one.
pub(crate) fn request_id(text: &str) -> Result<Option<RequestId>> {
    RequestId::parse(text)
}

/// Whether a change is acknowledged only when it is on disk.
pub(crate) fn waits(durability: i32) -> Result<bool> {
    match v1::Durability::try_from(durability) {
        Ok(v1::Durability::Accepted) => Ok(false),
        Ok(v1::Durability::Unspecified | v1::Durability::Local) => Ok(true),
        Err(_) => Err(Error::invalid("durability", "DURABILITY_ACCEPTED or DURABILITY_LOCAL")),
    }
}

/// The level that an acknowledgement has.
pub(crate) fn level(waited: bool) -> i32 {
    if waited { v1::Durability::Local.into() } else { v1::Durability::Accepted.into() }
}

/// A page size of a request.
pub(crate) fn page_size(size: i32) -> Result<usize> {
    let max = afs_types::limits::MAX_PAGE;
    usize::try_from(size)
        .ok()
        .filter(|n| *n <= max)
        .ok_or_else(|| Error::invalid("page_size", format!("0 to {max}")).with("limit", max.to_string()))
}

/// A precondition on a revision; 0 is none.
pub(crate) fn revision(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}
