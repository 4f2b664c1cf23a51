//! The expressions of the OpenAPI document fit what is taken, and nothing else.

use crate::patterns::{
    self, base64, duration, etags, id_or_empty, mask, path, some_duration, time, up_to, word_or_id,
};
use afs_proto::rest::Etags;
use afs_proto::{duration_ns, timestamp_ns, v1};
use afs_types::{SessionId, SessionPath, limits};
use http::header::{HeaderMap, HeaderValue, IF_MATCH};
use regex::Regex;
use serde_json::json;

/// Every text fits exactly when it is taken, and some of both are among them.
fn same<'t>(pattern: &str, texts: impl IntoIterator<Item = &'t str>, taken: impl Fn(&str) -> bool) {
    let regex = Regex::new(pattern).unwrap();
    let mut counts = [0, 0];
    for text in texts {
        assert_eq!(regex.is_match(text), taken(text), "{text:?} and {pattern}");
        counts[usize::from(taken(text))] += 1;
    }
    assert!(counts.iter().all(|count| *count > 0), "{pattern}: {counts:?}");
}

#[test]
fn numbers_end_at_their_limit() {
    for most in [0, 1, 7, 9, 10, 60, 99, 100, 119, 1000, 4095] {
        let all: Vec<String> = (0..2 * most + 20).map(|n| n.to_string()).collect();
        same(&up_to(most), all.iter().map(String::as_str), |text| text.parse::<u64>().unwrap() <= most);
        let regex = Regex::new(&up_to(most)).unwrap();
        for bad in ["", "00", "01", "-1", "+1", " 1", "1 ", "1.0", "1e0", "x"] {
            assert!(!regex.is_match(bad), "{bad:?} up to {most}");
        }
    }
    let near =
        ["0", "18446744073709551599", "18446744073709551609", "18446744073709551615", "9999999999999999999"];
    let beyond = [
        "18446744073709551616",
        "18446744073709551620",
        "18446744073709552000",
        "20000000000000000000",
        "100000000000000000000",
    ];
    same(&up_to(u64::MAX), near.into_iter().chain(beyond), |text| text.parse::<u64>().is_ok());
}

#[test]
fn times_and_durations_are_those_that_are_taken() {
    let of = |text: &str| serde_json::from_value::<v1::CreateSessionRequest>(json!({"ttl": text})).ok()?.ttl;
    let taken = |text: &str| of(text).is_some_and(|d| duration_ns("ttl", &d).is_ok());
    let texts = ["0s", "5s", "3.5s", "0.000000001s", "9223372035.999999999s", "9223372036s", "9223372036.7s"];
    let wrong = [
        "9223372036.9s",
        "9223372037s",
        "-1s",
        "1.s",
        ".5s",
        "1.0000000001s",
        "5",
        "1e3s",
        "s",
        "",
        "99999999999999999999s",
    ];
    same(&duration(), texts.into_iter().chain(wrong), taken);
    let nothing = ["0s", "0.0s", "0.000000000s"];
    let little = ["0.1s", "0.000000010s", "0.123456789s", "1s", "10.0s", "0.0000000001s"];
    let is_some = |text: &str| of(text).is_some_and(|d| duration_ns("ttl", &d).is_ok_and(|ns| ns > 0));
    let all = texts.into_iter().chain(wrong).chain(nothing).chain(little);
    same(&some_duration(), all, is_some);

    let of = |text: &str| {
        serde_json::from_value::<v1::SetAttributesRequest>(json!({"modify_time": text})).ok()?.modify_time
    };
    let taken = |text: &str| of(text).is_some_and(|t| timestamp_ns("modify_time", &t).is_ok());
    let texts = [
        "2026-01-31T12:00:00Z",
        "1678-01-01T00:00:00+14:00",
        "2261-12-31T23:59:59.999999999Z",
        "2020-02-29T00:00:00.5-03:30",
        "1970-01-01t00:00:00z",
    ];
    let wrong = [
        "1677-01-01T00:00:00Z",
        "2263-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01",
        "now",
        "",
    ];
    same(&time(), texts.into_iter().chain(wrong), taken);
}

#[test]
fn base64_is_what_is_decoded() {
    let taken = |text: &str| serde_json::from_value::<v1::WriteOp>(json!({"content": text})).is_ok();
    let texts = ["", "YQ==", "YQ=", "YQ", "YWI=", "YWI", "YWIx", "-_-_", "+/+/", "YWIxYQ"];
    let wrong = ["Y", "YR==", "YWJ=", "YWI==", "YWIx=", "-_+/", "YQ===", "Y Q=", "é", "=", "YWIxY"];
    same(&base64(), texts.into_iter().chain(wrong), taken);
}

#[test]
fn paths_and_ids_are_those_that_parse() {
    let texts = ["", "/", "//", "a", "/a//b/", "/...", "/.a/..b/a.", "/a\nb", "/caf\u{e9}/%FF", " "];
    let wrong = [".", "..", "/a/..", "/../a", "a/./b", "/a\0b"];
    same(&path(), texts.into_iter().chain(wrong), |text| SessionPath::parse_text(text).is_ok());

    let (longest, long) = (format!("sess_{}", "a".repeat(59)), format!("sess_{}", "a".repeat(60)));
    let ids = [
        "sess_a",
        "sess_-_9",
        "src_a",
        "sess_",
        "sess_A",
        "sess_a b",
        "xsess_a",
        "sess_\u{e9}",
        &longest,
        &long,
    ];
    same(&patterns::id("sess_", limits::MAX_ID_BYTES), ids, |text| SessionId::parse(text).is_ok());
    let optional = id_or_empty("sess_", limits::MAX_ID_BYTES);
    same(&optional, ids.into_iter().chain([""]), |text| text.is_empty() || SessionId::parse(text).is_ok());
    let named = word_or_id(&["live"], &["sess_"], limits::MAX_ID_BYTES);
    same(&named, ["live", "", "alive", "lives", "sess_a", "base"], |t| ["live", "", "sess_a"].contains(&t));
}

#[test]
fn entity_tags_are_those_that_are_read() {
    let read = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_str(text).unwrap());
        Etags::of(&headers, &IF_MATCH).ok().flatten()
    };
    let texts =
        ["*", "\"a\"", "a", "W/\"a\"", "\"a\", \"b\"", "\"a,b\"", "\"\"", "b ,c", "\"*\"", "d18-2", "*x"];
    let empty = ["", ",", "\t, ,", ",\"a\"", "\"a\",", "\"a\" ,\t, \"b\" ,", " \"a\"\t", ", a ,, b,", " *\t"];
    let texts = texts.into_iter().chain(empty);
    let wrong =
        ["\"a\"\"b\"", "\"a\"b", "a b", "\"", "\"a", "\"a b\"", "\"a\", *", ", *", "*,", "\"a\" \"b\""];
    same(&etags(false), texts.clone().chain(wrong), |text| read(text).is_some());
    let one = |text: &str| match read(text) {
        Some(Etags::List(list)) => list.len() <= 1,
        any => any.is_some(),
    };
    same(&etags(true), texts.clone().chain(wrong), one);
    let none = |text: &str| match read(text) {
        Some(Etags::List(list)) => list.is_empty(),
        any => any.is_some(),
    };
    same(&patterns::any_etag(), texts.chain(wrong), none);
}

#[test]
fn the_rest_is_as_it_says() {
    let names = mask(&["display_name", "labels"]);
    let right = ["display_name", "displayName", "labels", "labels,displayName", "labels , labels"];
    same(&names, right.into_iter().chain(["", "label", "labels,", "Labels", "x.labels"]), |t| {
        right.contains(&t)
    });
    same(patterns::OCTAL, ["644", "0644", "7777", "0", "007777", "", "8", "77777", "rwx"], |text| {
        u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777)
    });
    let right = ["**", "/a", "./a", "/./a", ".", ".a", "a"];
    same(patterns::GLOB, right.into_iter().chain(["", "/", "./", "//", ".//"]), |text| right.contains(&text));
    same(patterns::SAYS_SOMETHING, ["a", " a\n", "", " ", "\n", "a\0", "\0"], |t| {
        t.contains('a') && !t.contains('\0')
    });
    same(patterns::NO_NUL, ["", "a\n", "\0", "a\0b"], |text| !text.contains('\0'));
    let addresses =
        ["/a b", "h:\u{e9}", "https://h/-x", "x", "", "-x", "a\u{1}b", "a\u{7f}", "a\u{9f}", "\0", "\n"];
    same(patterns::GIT_URL, addresses, |text| {
        !text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control)
    });
    same(patterns::GRAPHIC, ["k", "!~", "a b", "\u{e9}", "\n"], |text| {
        text.bytes().all(|b| b.is_ascii_graphic())
    });
    let oid = "0123456789abcdefABCD0123456789abcdefABCD";
    same(patterns::OID_OR_EMPTY, ["", oid, &oid[1..], "x"], |text| text.is_empty() || text == oid);
    same(patterns::TOKEN_OR_EMPTY, ["", "00", "0aFf", "0", "zz"], |t| ["", "00", "0aFf"].contains(&t));
}
