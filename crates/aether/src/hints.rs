//! What the server advises, in words of the command line.
//!
//! Guarantees: no next step that a command shows names a field of a request that has a flag, or a wish that only a request can have. The
//! server's own words are for those who call its API, and stay as they are: who types a command finds here what to type. A hint is known by its
//! words, which a test finds in the sources of the server.

/// A piece of a hint of the server, and what it is called here.
const HINTS: &[(&str, &str)] = &[
    // Of one error.
    (
        "make the parent directories first, or set create_parents",
        "make the parent directories first with `aether fs mkdir -p`, or take -p where the command has it",
    ),
    ("set recursive to copy a directory", "copy a directory with -r"),
    ("or set fixed_string", "or search for plain text with -F"),
    ("or search without respect_gitignore", "or search without --gitignore"),
    (
        "add lines around it to old_text until it is unique, or set replace_all",
        "add lines around it to --old until it is unique, or replace every occurrence with --all",
    ),
    (
        "write the line ends of old_text and new_text as CR LF",
        "write the line ends of --old and --new as CR LF",
    ),
    ("or delete with force", "or delete with --force"),
    ("send fewer changes at once, or no request_id", "make fewer changes at once"),
    // Of a reason, where an error has no words of its own.
    ("start the list again without page_token", "run the command again"),
    ("or use a recursive operation", "or take the directory with -r where the command has it"),
    ("or remove recursively", "or remove it with what is in it: `aether fs rm -r`"),
    (
        "choose another name, or allow overwriting",
        "choose another name, or remove what is there first (`aether fs rm`); `fs mv` and `fs cp` replace it with --overwrite",
    ),
    (
        "add surrounding lines, or set replace_all",
        "add surrounding lines to --old, or replace all with --all",
    ),
    ("use a new request_id for a new request", "run the command again"),
    ("or force", "or take --force where the command has it"),
    ("(if_branch_oid)", "(--if-branch-oid)"),
    ("or allow an empty commit", "or make an empty commit with --allow-empty"),
    ("try again with the same request_id", "look whether it was done, then run the command again"),
];

/// A next step as the command line says it.
pub(crate) fn in_flags(step: &str) -> String {
    HINTS.iter().fold(step.to_owned(), |step, (api, here)| step.replace(api, here))
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_types::Reason;
    use std::fs;
    use std::path::Path;

    /// Names with `_` that are no fields of requests: settings of the server and of fuse, and what only the protocol of mounts has.
    const OTHERS: &[&str] =
        &["all_overlays_bytes", "max_connections", "answered_below", "data_dir", "AFS_SERVER_DATA_DIR"];

    fn sources(dir: &Path, all: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() {
                sources(&path, all);
            } else if name.ends_with(".rs") && !name.contains("tests") {
                all.push(fs::read_to_string(path).unwrap());
            }
        }
    }

    fn server() -> Vec<String> {
        let mut all = Vec::new();
        for name in ["afs-session", "afs-server", "afs-base", "afs-types"] {
            sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"), &mut all);
        }
        assert!(all.len() > 50, "{}", all.len());
        all
    }

    /// The literals that a source gives as next steps.
    fn next_steps(text: &str) -> Vec<String> {
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        let after = own.split(".next(").skip(1).map(str::trim_start);
        let literal = |rest: &str| {
            let rest = rest.strip_prefix("format!(").unwrap_or(rest).trim_start();
            Some(rest.strip_prefix('"')?.split('"').next()?.to_owned())
        };
        after.filter_map(literal).collect()
    }

    fn fields_in(step: &str) -> Vec<String> {
        let words = step.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|w| w.contains('_') && !OTHERS.contains(w)).map(ToOwned::to_owned).collect()
    }

    #[test]
    fn every_hint_is_still_one_of_the_server() {
        let all = server();
        for (api, _) in HINTS {
            assert!(all.iter().any(|text| text.contains(api)), "no source says {api:?} any more");
        }
    }

    #[test]
    fn no_hint_of_the_server_names_a_field_here() {
        let mut steps: Vec<String> = server().iter().flat_map(|text| next_steps(text)).collect();
        steps.extend(Reason::ALL.iter().map(|reason| reason.next_step().to_owned()));
        assert!(steps.iter().any(|step| !fields_in(step).is_empty()), "the test finds no field at all");
        for step in steps {
            let shown = in_flags(&step);
            assert!(fields_in(&shown).is_empty(), "{shown:?}: say it in flags in hints.rs");
        }
    }

    #[test]
    fn a_hint_inside_of_others_is_found_and_the_rest_stays() {
        assert_eq!(in_flags("close them; or delete with force"), "close them; or delete with --force");
        assert_eq!(
            in_flags("end what uses it first, or force"),
            "end what uses it first, or take --force where the command has it"
        );
        assert_eq!(in_flags("look the path up again"), "look the path up again");
    }
}
