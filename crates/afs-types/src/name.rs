//! File names and session paths. A name is bytes, not text: git and POSIX allow any byte but `/` and NUL.

use crate::{Error, Reason, Result, limits};
use std::fmt;

/// A valid file name: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// A borrowed file name that has been checked. Cheap to copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameRef<'a>(&'a [u8]);

impl<'a> NameRef<'a> {
    /// Checks a name.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > limits::MAX_NAME_BYTES {
            return Err(Error::new(
                Reason::NameTooLong,
                format!("a name has {} bytes, the limit is {}", bytes.len(), limits::MAX_NAME_BYTES),
            )
            .with("limit", limits::MAX_NAME_BYTES.to_string()));
        }
        let bad = bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|b| matches!(b, 0 | b'/'));
        if bad {
            return Err(Error::new(
                Reason::InvalidName,
                format!("{:?} is not a file name", Name::lossy(bytes)),
            ));
        }
        Ok(Self(bytes))
    }
    /// The bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
    /// An owned copy.
    pub fn to_name(self) -> Name {
        Name(self.0.into())
    }
}

impl Name {
    /// Checks and takes a name.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        NameRef::new(bytes).map(NameRef::to_name)
    }
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// Borrowed form.
    pub fn as_ref(&self) -> NameRef<'_> {
        NameRef(&self.0)
    }
    /// For people: invalid UTF-8 is replaced, and what [`is_hidden`] is escaped.
    pub fn lossy(bytes: &[u8]) -> String {
        show(&String::from_utf8_lossy(bytes), |_| false)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Self::lossy(&self.0))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::lossy(&self.0))
    }
}

/// An absolute path inside a session, already split: no `.`, no `..`, no empty components.
///
/// JSON surfaces write bytes that are not UTF-8 as `%XX` (and `%` as `%25`): see [`SessionPath::to_text`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionPath(Vec<Name>);

impl SessionPath {
    /// The root directory.
    pub fn root() -> Self {
        Self::default()
    }
    /// Takes a path as bytes. A leading `/` is optional, a trailing or doubled one is ignored; `.` and `..` are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > limits::MAX_PATH_BYTES {
            return Err(Error::new(
                Reason::PathTooLong,
                format!("the path has {} bytes, the limit is {}", bytes.len(), limits::MAX_PATH_BYTES),
            )
            .with("field", "path")
            .with("limit", limits::MAX_PATH_BYTES.to_string()));
        }
        let names: Result<Vec<Name>> =
            bytes.split(|b| *b == b'/').filter(|p| !p.is_empty()).map(Name::new).collect();
        let names = names.map_err(|e| e.with("field", "path"))?;
        if names.len() > limits::MAX_PATH_DEPTH {
            return Err(Error::new(
                Reason::PathTooLong,
                format!("the path has {} components, the limit is {}", names.len(), limits::MAX_PATH_DEPTH),
            )
            .with("field", "path")
            .with("limit", limits::MAX_PATH_DEPTH.to_string()));
        }
        Ok(Self(names))
    }
    /// Takes the text form that [`SessionPath::to_text`] writes.
    pub fn parse_text(text: &str) -> Result<Self> {
        Self::parse(&unescape(text))
    }
    /// The components.
    pub fn names(&self) -> &[Name] {
        &self.0
    }
    /// True for `/`.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
    /// Parent directory and last name; none for the root.
    pub fn split_last(&self) -> Option<(&[Name], &Name)> {
        self.0.split_last().map(|(last, dirs)| (dirs, last))
    }
    /// This path with one more component.
    pub fn join(&self, name: Name) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Self(names)
    }
    /// `/a/b` as bytes; `/` for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return b"/".to_vec();
        }
        self.0.iter().flat_map(|n| [b"/".as_slice(), n.as_bytes()].concat()).collect()
    }
    /// `/a/b` as text, lossless: bytes that are not UTF-8, and `%`, become `%XX`.
    pub fn to_text(&self) -> String {
        escape(&self.to_bytes())
    }
    /// Whether `self` is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        self.0.starts_with(&ancestor.0)
    }
}

impl From<Vec<Name>> for SessionPath {
    fn from(names: Vec<Name>) -> Self {
        Self(names)
    }
}

impl fmt::Debug for SessionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Display for SessionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Whether a terminal or a reader would not see a character as itself: control characters (also those of U+0080 to U+009F), separators of
/// lines and paragraphs, and what turns the direction of text around.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in which nothing is hidden, for people: what [`is_hidden`], but for what is kept, is written as Rust writes it (`\n`,
/// `\u{1b}`).
pub fn show(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) && !is_kept(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Bytes as text, lossless: what is not UTF-8, and `%`, becomes `%XX`. For paths, and for targets of symbolic links.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '%' => out.push_str("%25"),
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// The bytes that [`escape`] wrote.
pub fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
        let hex = (bytes[i] == b'%').then(|| Some(digit(i + 1)? * 16 + digit(i + 2)?)).flatten();
        match hex {
            Some(b) => {
                out.push(b);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"..."[..], b" ", b"\xff\xfe", &[b'x'; 255]] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn nothing_is_hidden_in_what_people_see() {
        let name =
            b"\x1b]0;title\x07 a\nb \xe2\x80\xaegpj.exe \xc2\x9b1m \xd8\x9c \xe2\x81\xa9 \xe2\x80\xa8 \x7f";
        let want =
            "\\u{1b}]0;title\\u{7} a\\nb \\u{202e}gpj.exe \\u{9b}1m \\u{61c} \\u{2069} \\u{2028} \\u{7f}";
        assert_eq!(Name::lossy(name), want);
        assert_eq!(show("a\tb\n\x1b", |c| c == '\t'), "a\tb\\n\\u{1b}");
        // Letters of any script, and what joins them, stay.
        for plain in ["caf\u{e9}", "\u{5e9}\u{5dc}", "\u{1f469}\u{200d}\u{1f680}", "a b\u{a0}c"] {
            assert_eq!(show(plain, |_| false), plain);
        }
    }

    #[test]
    fn paths_survive_text() {
        for raw in [&b"/"[..], b"/a/b", b"/caf\xc3\xa9/\xff\xfe", b"/100%/%41"] {
            let path = SessionPath::parse(raw).unwrap();
            assert_eq!(SessionPath::parse_text(&path.to_text()).unwrap(), path);
            assert_eq!(path.to_bytes(), raw);
        }
        // `+` is a sign to a parser of numbers, not a digit.
        assert_eq!(unescape("%+1%2"), b"%+1%2");
        assert_eq!(SessionPath::parse(b"a//b/").unwrap(), SessionPath::parse(b"/a/b").unwrap());
        for bad in [&b"/a/../b"[..], b"./a", &[b'a'; 5000]] {
            assert!(SessionPath::parse(bad).is_err());
        }
    }
}
