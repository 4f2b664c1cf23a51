//! Errors of the tree, told in terms of paths, and those of elements of a list, told in terms of the request: `changes[3].edit.edits[1].old_text`.

use afs_types::{Error, Name, Reason, SessionPath};
use std::fmt;

/// Names the path in an error, unless one is named already.
pub(super) fn at(path: &SessionPath) -> impl Fn(Error) -> Error + '_ {
    move |error| {
        if error.metadata().iter().any(|(key, _)| *key == "path") {
            return error;
        }
        let path = path.to_text();
        prefixed(error, &path).with("path", path)
    }
}

/// The same error with `prefix: ` in front of its message, or of the words of one that has none.
pub(super) fn prefixed(error: Error, prefix: &str) -> Error {
    let message = format!("{prefix}: {}", said(&error));
    error.with_message(message)
}

/// The same error with the place in the request of what it is about: of the field that it names, if it names one, else of the whole.
pub(super) fn placed(error: &Error, place: &str) -> Error {
    let inner = field_of(error);
    let field = inner.map_or_else(|| place.to_owned(), |inner| format!("{place}.{inner}"));
    let said = said(error);
    let message = match inner.and_then(|inner| said.strip_prefix(inner)) {
        Some(rest) => format!("{field}{rest}"),
        None => format!("{place}: {said}"),
    };
    with_field(error, message, field)
}

/// The same error as one of `field` and of nothing inside of it.
pub(super) fn of_field(error: &Error, field: &str) -> Error {
    with_field(error, format!("{field}: {}", said(error)), field.to_owned())
}

/// `field` has a value that can never be right; `want` says what would be.
pub(super) fn invalid(field: &str, want: impl fmt::Display) -> Error {
    Error::new(Reason::InvalidArgument, format!("{field}: want {want}")).with("field", field)
}

/// The name of an element that has one instead of an index; too long ones are cut.
pub(super) fn shown_name(name: &[u8]) -> String {
    Name::lossy(name).chars().take(80).collect()
}

fn field_of(error: &Error) -> Option<&str> {
    error.metadata().iter().find(|(key, _)| *key == "field").map(|(_, field)| field.as_str())
}

fn with_field(error: &Error, message: String, field: String) -> Error {
    let others = error.metadata().iter().filter(|(key, _)| *key != "field");
    others.fold(told(error, message), |told, (key, value)| told.with(key, value.clone())).with("field", field)
}

fn said(error: &Error) -> &str {
    let said = error.message();
    if said == error.reason.as_str() { words(error.reason) } else { said }
}

/// The same reason and next step with another message, and no facts yet.
fn told(error: &Error, message: String) -> Error {
    let told = Error::new(error.reason, message);
    if error.next_step() == error.reason.next_step() { told } else { told.next(error.next_step()) }
}

/// What a reason without a message of its own says.
fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::NotFound => "no such file or directory",
        Reason::NotADirectory => "not a directory",
        Reason::IsADirectory => "is a directory",
        Reason::NotEmpty => "the directory is not empty",
        Reason::AlreadyExists => "exists already",
        Reason::WrongType => "not a regular file",
        Reason::MoveIntoSelf => "a directory cannot go into itself",
        Reason::TooManySymlinks => "too many symbolic links on the way",
        Reason::TooManyLinks => "it has too many hard links",
        Reason::NotPermitted => "a directory cannot have a second name",
        Reason::NoAttribute => "no such extended attribute",
        Reason::NotText => "not a text file",
        other => other.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_path_stays() {
        let (a, b) = (SessionPath::parse(b"/a").unwrap(), SessionPath::parse(b"/b").unwrap());
        let error = at(&b)(at(&a)(Reason::NotFound.into()));
        assert_eq!(error.message(), "/a: no such file or directory");
        assert_eq!(error.metadata(), [("path", "/a".to_owned())]);
        let error = prefixed(error.next("look"), "change 3");
        assert_eq!((error.message(), error.next_step()), ("change 3: /a: no such file or directory", "look"));
    }

    #[test]
    fn the_place_in_a_request_is_told() {
        let field = |error: &Error| field_of(error).unwrap().to_owned();
        let inner = placed(&invalid("old_text", "some text").next("write it"), "edits[1]");
        let outer = placed(&inner, "changes[2].edit");
        assert_eq!(outer.message(), "changes[2].edit.edits[1].old_text: want some text");
        assert_eq!(
            (field(&outer).as_str(), outer.next_step()),
            ("changes[2].edit.edits[1].old_text", "write it")
        );
        let path = SessionPath::parse(b"/a").unwrap();
        let bare = placed(&at(&path)(Reason::NotFound.into()), "changes[0].remove");
        assert_eq!(bare.message(), "changes[0].remove: /a: no such file or directory");
        assert_eq!(bare.metadata(), [("path", "/a".to_owned()), ("field", "changes[0].remove".to_owned())]);
        let named = of_field(&invalid("name", "a name"), "remove_xattrs[3]");
        assert_eq!(
            (named.message(), field(&named).as_str()),
            ("remove_xattrs[3]: name: want a name", "remove_xattrs[3]")
        );
    }
}
