//! Regular expressions of the OpenAPI document. Pure; the tests of this crate include the file (`tests/it/patterns.rs`).
//!
//! Guarantees: each is anchored and has no look-around, so that ECMA-262, RE2 and Rust's `regex` read it alike; what a limit bounds is
//! counted from that limit, never written down again.

use std::fmt::Write as _;

/// Part of an expression: the decimal numbers from 0 to `most`, without zeros in front.
fn decimal(most: u64) -> String {
    format!("({})", [vec!["0".to_owned()], from_one(most)].concat().join("|"))
}

/// Parts of an expression that together are the decimal numbers from 1 to `most`, without zeros in front.
fn from_one(most: u64) -> Vec<String> {
    let digits = most.to_string();
    let mut parts = Vec::new();
    if digits.len() > 1 {
        parts.push(format!("[1-9]{}", any_digits(0, digits.len() - 2)));
    }
    // As many digits: the same up to some place, and a smaller one there.
    for (at, digit) in digits.bytes().enumerate() {
        let least = if at == 0 { b'1' } else { b'0' };
        if digit <= least {
            continue;
        }
        let smaller = match digit - 1 {
            last if last == least => char::from(last).to_string(),
            last => format!("[{}-{}]", char::from(least), char::from(last)),
        };
        let rest = digits.len() - at - 1;
        parts.push(format!("{}{smaller}{}", &digits[..at], any_digits(rest, rest)));
    }
    if most > 0 {
        parts.push(digits);
    }
    parts
}

fn any_digits(least: usize, most: usize) -> String {
    match (least, most) {
        (_, 0) => String::new(),
        (1, 1) => "[0-9]".into(),
        _ if least == most => format!("[0-9]{{{most}}}"),
        _ => format!("[0-9]{{{least},{most}}}"),
    }
}

/// The decimal numbers from 0 to `most`, without zeros in front.
pub(crate) fn up_to(most: u64) -> String {
    format!("^{}$", decimal(most))
}

/// Durations in seconds from 0 to what 64 bits of nanoseconds hold, to the tenth of a second.
pub(crate) fn duration() -> String {
    let last = i64::MAX.unsigned_abs() / 1_000_000_000;
    format!("^({}(\\.[0-9]{{1,9}})?|{last}(\\.[0-7][0-9]{{0,8}})?)s$", decimal(last - 1))
}

/// Those durations that are more than nothing.
pub(crate) fn some_duration() -> String {
    let last = i64::MAX.unsigned_abs() / 1_000_000_000;
    let seconds = from_one(last - 1).join("|");
    // Nine digits, of which one is not 0.
    let part: Vec<String> =
        (0..9usize).map(|zeros| format!("{}[1-9]{}", "0".repeat(zeros), any_digits(0, 8 - zeros))).collect();
    let part = part.join("|");
    format!("^(({seconds})(\\.[0-9]{{1,9}})?|0\\.({part})|{last}(\\.[0-7][0-9]{{0,8}})?)s$")
}

/// RFC 3339 with a year that 64 bits of nanoseconds hold as a whole: 1678 to 2261. That a month has such a day, `format` says.
pub(crate) fn time() -> String {
    let year = "(167[89]|16[89][0-9]|1[7-9][0-9]{2}|2[01][0-9]{2}|22[0-5][0-9]|226[01])";
    let day = "(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
    let clock = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?";
    format!("^{year}-{day}[Tt ]{clock}([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$")
}

/// Base64 in the standard alphabet or that of URLs, padded or not; bits that stand for nothing are 0.
pub(crate) fn base64() -> String {
    let either = |digits: &str| {
        let one = format!("[A-Za-z0-9{digits}]");
        format!("({one}{{4}})*({one}[AQgw]={{0,2}}|{one}{{2}}[AEIMQUYcgkosw048]=?)?")
    };
    format!("^({}|{})$", either("+/"), either("_-"))
}

/// Names joined by commas, each in either spelling: `display_name` and `displayName`.
pub(crate) fn mask(names: &[&str]) -> String {
    let mut any = String::new();
    for name in names {
        let separator = if any.is_empty() { "" } else { "|" };
        let camel = camel_case(name);
        let other = if camel == *name { String::new() } else { format!("|{camel}") };
        let _ = write!(any, "{separator}{name}{other}"); // a String takes everything
    }
    format!("^({any})( *, *({any}))*$")
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(part.len().min(1));
        out += &first.to_ascii_uppercase();
        out += rest;
    }
    out
}

/// Part of an expression: ids with this prefix, of `most` bytes in all.
fn id_body(prefix: &str, most: usize) -> String {
    format!("{prefix}[a-z0-9_-]{{1,{}}}", most - prefix.len())
}

/// Ids with this prefix.
pub(crate) fn id(prefix: &str, most: usize) -> String {
    format!("^{}$", id_body(prefix, most))
}

/// Ids with this prefix, or the empty text.
pub(crate) fn id_or_empty(prefix: &str, most: usize) -> String {
    format!("^({})?$", id_body(prefix, most))
}

/// Words, ids with these prefixes, or the empty text.
pub(crate) fn word_or_id(words: &[&str], prefixes: &[&str], most: usize) -> String {
    let ids = prefixes.iter().map(|prefix| id_body(prefix, most));
    let all: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(ids).collect();
    format!("^({})?$", all.join("|"))
}

/// Paths in their text form: names with slashes between, none of them `.` or `..`, no NUL. The empty one, and `/`, are the root.
pub(crate) fn path() -> String {
    let name = "([^/.\\x00][^/\\x00]*|\\.[^/.\\x00][^/\\x00]*|\\.\\.[^/\\x00]+)";
    format!("^/*({name}(/+{name})*/*)?$")
}

/// White space around what a header lists.
const SPACE: &str = "[ \\t]*";
/// Elements that are empty (RFC 9110 §5.6.1).
const NOTHING: &str = "[ \\t,]*";

/// A list of entity tags, or `*`; `one`: a single one. Quotes are optional, and elements may be empty, as the server takes them.
pub(crate) fn etags(one: bool) -> String {
    // Anything but controls, spaces and quotes; outside of quotes no comma either, and not the asterisk alone.
    let (quoted, bare, no_star) =
        ("[^\\x00-\\x20\"\\x7f]", "[^\\x00-\\x20\",\\x7f]", "[^\\x00-\\x20\"*,\\x7f]");
    let tag = format!("(W/)?(\"{quoted}*\"|{bare}*{no_star}{bare}*)");
    let more = if one { String::new() } else { format!("({SPACE},{NOTHING}{tag})*") };
    format!("^({SPACE}\\*{SPACE}|{NOTHING}({tag}{more}{SPACE}(,{NOTHING})?)?)$")
}

/// `*`, or a list in which nothing is.
pub(crate) fn any_etag() -> String {
    format!("^({SPACE}\\*{SPACE}|{NOTHING})$")
}

/// Ids of git objects, or the empty text.
pub(crate) const OID_OR_EMPTY: &str = "^([0-9a-fA-F]{40})?$";
/// Page tokens, or the empty text.
pub(crate) const TOKEN_OR_EMPTY: &str = "^([0-9a-fA-F]{2})*$";
/// Text without NUL.
pub(crate) const NO_NUL: &str = "^[^\\x00]*$";
/// What may be the address of a repository: no control characters, and no option of a program.
pub(crate) const GIT_URL: &str = "^[^\\x00-\\x1f\\x7f-\\x9f-][^\\x00-\\x1f\\x7f-\\x9f]*$";
/// Permission bits in octal.
pub(crate) const OCTAL: &str = "^0*[0-7]{1,4}$";
/// What an `Idempotency-Key` is made of.
pub(crate) const GRAPHIC: &str = "^[!-~]*$";
/// Text without NUL in which something can be seen.
pub(crate) const SAYS_SOMETHING: &str = "^[^\\x00]*[^\\s\\x00][^\\x00]*$";
/// Globs that are not empty without `./` or `/` in front.
pub(crate) const GLOB: &str = "^(\\./)*([^./]|\\.[^/]|\\.$|/+[^/])";
