//! Errors of the tree, told in terms of paths.

use afs_types::{Error, Reason, SessionPath};

/// Names the path in an error, unless one is named already.
pub(super) fn at(path: &SessionPath) -> impl Fn(Error) -> Error + '_ {
    move |error| {
        if error.metadata().iter().any(|(key, _)| *key == "path") {
            return error;
        }
        let path = path.to_text();
        prefixed(&error, &path).with("path", path)
    }
}

/// The same error with `prefix: ` in front of its message.
pub(super) fn prefixed(error: &Error, prefix: &str) -> Error {
    let said = error.message();
    let said = if said == error.reason.as_str() { words(error.reason) } else { said };
    let mut told = Error::new(error.reason, format!("{prefix}: {said}"));
    for (key, value) in error.metadata() {
        told = told.with(key, value.clone());
    }
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
        let error = prefixed(&error.next("look"), "change 3");
        assert_eq!((error.message(), error.next_step()), ("change 3: /a: no such file or directory", "look"));
    }
}
