//! Lists of entity tags, as `If-Match` and `If-None-Match` have them (RFC 9110 §8.8, §13.1).
//!
//! Quotes are optional on the way in: people type etags as `stat` shows them.

use super::shape::invalid;
use afs_types::Result;
use axum::http::{HeaderMap, HeaderName};

/// What a condition names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Etags {
    /// `*`: whatever is there.
    Any,
    /// One or several.
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
        let Some(text) = header_text(headers, name)? else { return Ok(None) };
        Self::parse(&text)
            .map(Some)
            .ok_or_else(|| invalid(name.as_str(), "entity tags in quotes with commas between, or `*`"))
    }

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let tags: Option<Vec<Etag>> =
            text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(one).collect();
        tags.filter(|list| !list.is_empty()).map(Self::List)
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

    /// The strong tags with commas between, which is how preconditions are written; `*` for any. None if all are weak.
    pub fn strong(&self) -> Option<String> {
        let Self::List(list) = self else { return Some("*".into()) };
        let strong: Vec<&str> = list.iter().filter(|e| !e.weak).map(|e| e.tag.as_str()).collect();
        (!strong.is_empty()).then(|| strong.join(","))
    }
}

fn one(text: &str) -> Option<Etag> {
    let (weak, rest) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
    let tag = match rest.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => rest,
    };
    let is_tag = !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_graphic() && b != b'"') && tag != "*";
    is_tag.then(|| Etag { weak, tag: tag.to_owned() })
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
    use axum::http::header::IF_MATCH;

    fn etags(lines: &[&'static str]) -> Result<Option<Etags>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, line.parse().unwrap());
        }
        Etags::of(&headers, &IF_MATCH)
    }

    #[test]
    fn lists_and_comparisons() {
        assert_eq!(etags(&[]).unwrap(), None);
        assert_eq!(etags(&["*"]).unwrap(), Some(Etags::Any));
        let list = etags(&["\"a\", W/\"b\"", "c"]).unwrap().unwrap();
        assert!(list.has("a") && !list.has("b") && list.has("c") && !list.has("d"));
        assert!(list.has_weakly("b"));
        assert_eq!(list.strong().as_deref(), Some("a,c"));
        assert_eq!(etags(&["W/\"b\""]).unwrap().unwrap().strong(), None);
        for bad in ["", ",", "\"a", "a\"b", "\"a\", *", "a b"] {
            assert!(etags(&[bad]).is_err(), "{bad}");
        }
    }
}
