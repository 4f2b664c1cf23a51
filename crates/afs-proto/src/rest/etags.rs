//! Lists of entity tags, as `If-Match` and `If-None-Match` have them (RFC 9110 §8.8.3, §13.1).
//!
//! Guarantees: whatever a tag is, a comma or `*` in quotes is a part of it; an empty list is one that nothing is in. Quotes are optional on the
//! way in: people type etags as `stat` shows them.

use super::shape::invalid;
use afs_types::{Error, Reason, Result};
use axum::http::{HeaderMap, HeaderName};

/// What a condition names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Etags {
    /// `*`: whatever is there.
    Any,
    /// One, several, or none.
    List(Vec<Etag>),
}

/// One tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Etag {
    /// `W/`: the same meaning, not the same bytes.
    pub weak: bool,
    /// Without quotes.
    pub tag: String,
}

impl Etags {
    /// The value of a header, which may be there several times; none if it is not there.
    pub fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>> {
        if !headers.contains_key(name) {
            return Ok(None);
        }
        // A tag may have bytes that are not ASCII. Ours have none, so that it is the same which.
        let lines: Vec<_> =
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        Self::parse(&lines.join(", "))
            .map(Some)
            .ok_or_else(|| invalid(name.as_str(), "entity tags in quotes with commas between, or `*`"))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let (mut list, mut rest) = (Vec::new(), text);
        loop {
            // Between commas there may be nothing (RFC 9110 §5.6.1).
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return Some(Self::List(list));
            }
            let (etag, after) = first(rest)?;
            list.push(etag);
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
    }

    /// Strong comparison: for changes, and for parts of a body.
    pub fn has(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.iter().any(|e| !e.weak && e.tag == etag),
        }
    }

    /// Weak comparison: for answers from a cache.
    pub fn has_weakly(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.iter().any(|e| e.tag == etag),
        }
    }

    /// The tags that what is to be changed may have, as preconditions write them: with commas between; `*` for any. Left out are those that
    /// nothing of ours has: weak ones, and those that would say something else there. `ETAG_MISMATCH` if none is left.
    pub fn for_change(&self) -> Result<String> {
        let Self::List(list) = self else { return Ok("*".into()) };
        let is_ours = |e: &&Etag| !e.weak && !matches!(e.tag.as_str(), "" | "*") && !e.tag.contains(',');
        let ours: Vec<&str> = list.iter().filter(is_ours).map(|e| e.tag.as_str()).collect();
        if !ours.is_empty() {
            return Ok(ours.join(","));
        }
        let why = match list.iter().any(|e| e.weak) {
            true => "a weak entity tag is never enough for a change",
            false => "nothing here has such an entity tag",
        };
        Err(Error::new(Reason::EtagMismatch, format!("if-match: {why}")).with("field", "if-match"))
    }
}

/// The tag that a text starts with, and what comes after it.
fn first(text: &str) -> Option<(Etag, &str)> {
    let (weak, rest) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
    let (tag, after) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => {
            let (tag, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (Some(tag.trim_end()).filter(|tag| !matches!(*tag, "" | "*"))?, after)
        }
    };
    let is_tag = tag.chars().all(|c| c == '!' || matches!(c, '#'..='~') || !c.is_ascii());
    is_tag.then(|| (Etag { weak, tag: tag.to_owned() }, after))
}

/// The text of a header, its lines joined by commas; none if it is not there.
pub fn header_text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>> {
    let mut texts = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| invalid(name.as_str(), "printable ASCII"))?;
        texts.push(text);
    }
    Ok((!texts.is_empty()).then(|| texts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use axum::http::header::IF_MATCH;

    fn etags(lines: &[&str]) -> Result<Option<Etags>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Etags::of(&headers, &IF_MATCH)
    }

    fn list(lines: &[&str]) -> Etags {
        etags(lines).unwrap().unwrap()
    }

    #[test]
    fn lists_and_comparisons() {
        assert_eq!(etags(&[]).unwrap(), None);
        assert_eq!(etags(&["*"]).unwrap(), Some(Etags::Any));
        let three = list(&["\"a\", W/\"b\"", "c"]);
        assert!(three.has("a") && !three.has("b") && three.has("c") && !three.has("d"));
        assert!(three.has_weakly("b"));
        assert_eq!(three.for_change().unwrap(), "a,c");
        assert_eq!(list(&["*"]).for_change().unwrap(), "*");
        for bad in ["\"a", "a\"b", "\"a\", *", "a b", "\"a b\"", "\"a\"b", "\"a\" \"b\"", "w/\"a\"", "W/"] {
            assert!(etags(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_in_quotes_is_a_tag_whatever_it_is() {
        let tags = |text: &str| match list(&[text]) {
            Etags::List(list) => list.into_iter().map(|e| e.tag).collect::<Vec<_>>(),
            Etags::Any => panic!("{text} is a list"),
        };
        assert_eq!(tags("\"a,b\""), ["a,b"]);
        assert_eq!(tags("\"a,b\" ,, W/\",\",c"), ["a,b", ",", "c"]);
        assert_eq!(tags("\"*\""), ["*"]);
        assert_eq!(tags("\"\""), [""]);
        assert_eq!(tags("\"W/\\\""), ["W/\\"]);
        assert_eq!(tags("\"é\""), ["é"]);
        let star = list(&["\"*\""]);
        assert!(!star.has("a") && !star.has_weakly("a") && star.has("*"));
        let two = list(&["\"a,b\""]);
        assert!(!two.has("a") && !two.has_weakly("b") && two.has("a,b"));
        // As the text of a precondition they would be any tag, two tags, or no condition.
        for text in ["\"*\"", "\"a,b\"", "\"\"", "W/\"b\""] {
            let error = list(&[text]).for_change().unwrap_err();
            assert_eq!(error.reason, Reason::EtagMismatch, "{text}");
        }
        assert_eq!(list(&["\"*\", \"a,b\", \"c\", \"\""]).for_change().unwrap(), "c");
    }

    #[test]
    fn nothing_is_in_an_empty_list() {
        for empty in ["", " ", ",", " , ,"] {
            let none = list(&[empty]);
            assert_eq!(none, Etags::List(Vec::new()), "{empty:?}");
            assert!(!none.has("a") && !none.has_weakly("a"));
            assert_eq!(none.for_change().unwrap_err().reason, Reason::EtagMismatch);
        }
    }
}
