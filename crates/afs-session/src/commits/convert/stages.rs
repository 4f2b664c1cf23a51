//! The steps of a conversion, each fed in pieces of any size: pure, and as git does it (`convert.c`, `utf8.c`).
//!
//! Guarantees: what comes out does not depend on where the pieces end; no stage keeps more than a few bytes, but for `$Id:`, which waits
//! for its end for at most [`limits::MAX_IDENT_BYTES`]. Of encodings, those are known whose tables here and in git's iconv (glibc) agree in
//! every byte: UTF-16 and UTF-32, ISO-8859, most Windows code pages of one byte, KOI8-R and CP866. All else is refused.

use afs_types::{Error, Reason, Result, limits};

/// What git counts to tell text from other bytes.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) crlf: u64,
    nul: u64,
    lone_cr: u64,
    printable: u64,
    others: u64,
    /// Of the newest byte, which may be one of a pair.
    last: Option<u8>,
}

impl Stats {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.last == Some(b'\r') {
                self.crlf += u64::from(*byte == b'\n');
                self.lone_cr += u64::from(*byte != b'\n');
            }
            self.last = Some(*byte);
            match byte {
                b'\r' | b'\n' => {}
                8 | b'\t' | 12 | 27 | 32..=126 | 128.. => self.printable += 1,
                _ => {
                    self.nul += u64::from(*byte == 0);
                    self.others += 1;
                }
            }
        }
    }

    pub(super) fn finish(&mut self) {
        self.lone_cr += u64::from(self.last == Some(b'\r'));
        // An end-of-file character of old.
        self.others -= u64::from(self.last == Some(26));
    }

    pub(super) fn is_binary(&self) -> bool {
        self.lone_cr > 0 || self.nul > 0 || self.printable >> 7 < self.others
    }

    /// Text with `\r\n` that git tracks stays as it is where git decides what is text.
    pub(super) fn keeps_line_ends(&self) -> bool {
        self.crlf > 0 && !self.is_binary()
    }
}

/// All steps.
#[derive(Default)]
pub(super) struct Stages {
    decode: Option<Decoder>,
    line_ends: Option<CrLf>,
    ident: Option<Ident>,
    /// Between them.
    decoded: Vec<u8>,
    ended: Vec<u8>,
}

impl Stages {
    pub(super) fn new(decode: Option<Decoder>, line_ends: Option<CrLf>, ident: Option<Ident>) -> Self {
        Self { decode, line_ends, ident, ..Self::default() }
    }

    /// Takes a piece in; what is ready is added to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.run(bytes, false, out)
    }

    /// There is no more.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.run(b"", true, out)
    }

    fn run(&mut self, bytes: &[u8], is_end: bool, out: &mut Vec<u8>) -> Result<()> {
        let mut bytes = bytes;
        if let Some(decode) = &mut self.decode {
            self.decoded.clear();
            decode.push(bytes, &mut self.decoded)?;
            if is_end {
                decode.finish()?;
            }
            bytes = &self.decoded;
        }
        if let Some(line_ends) = &mut self.line_ends {
            self.ended.clear();
            line_ends.push(bytes, &mut self.ended);
            if is_end {
                line_ends.finish(&mut self.ended);
            }
            bytes = &self.ended;
        }
        match &mut self.ident {
            Some(ident) => {
                ident.push(bytes, out)?;
                if is_end {
                    out.append(&mut ident.held);
                }
            }
            None => out.extend_from_slice(bytes),
        }
        Ok(())
    }
}

/// Takes `\r` in front of `\n` away.
#[derive(Default)]
pub(super) struct CrLf {
    /// A `\r` whose next byte is not known.
    held: bool,
}

impl CrLf {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            if self.held && *byte != b'\n' {
                out.push(b'\r');
            }
            self.held = *byte == b'\r';
            if !self.held {
                out.push(*byte);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend(self.held.then_some(b'\r'));
        self.held = false;
    }
}

const ID: &[u8] = b"$Id:";

/// Makes `$Id$` of `$Id: ...$` on one line.
#[derive(Default)]
pub(super) struct Ident {
    /// What may be one.
    held: Vec<u8>,
}

impl Ident {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        for byte in bytes {
            match (self.held.len(), byte) {
                (0, b'$') => self.held.push(b'$'),
                (0, _) => out.push(*byte),
                (n, byte) if n < ID.len() => {
                    if *byte != ID[n] {
                        out.append(&mut self.held);
                    }
                    match self.held.is_empty() && *byte != b'$' {
                        true => out.push(*byte),
                        false => self.held.push(*byte),
                    }
                }
                (_, b'$') => {
                    out.extend_from_slice(b"$Id$");
                    self.held.clear();
                }
                (_, b'\n') => {
                    out.append(&mut self.held);
                    out.push(b'\n');
                }
                (n, _) if n < limits::MAX_IDENT_BYTES => self.held.push(*byte),
                _ => return Err(long_ident()),
            }
        }
        Ok(())
    }
}

fn long_ident() -> Error {
    let limit = limits::MAX_IDENT_BYTES;
    let message =
        format!("`ident` is set for it, and a `$Id:` in it has no end on its line within {limit} bytes");
    Error::new(Reason::FileTooLarge, message)
        .with("limit", limit.to_string())
        .next("set `-ident` for it in .gitattributes, or break the line")
}

/// What a byte order mark is to an encoding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Needed,
    Allowed,
    Refused,
}

/// Makes UTF-8 of bytes in another encoding.
pub(super) struct Decoder {
    kind: Kind,
    name: String,
    mark: Mark,
    /// Nothing was decoded so far.
    at_start: bool,
    /// Bytes of a character that goes on, and how many; the first half of one that has two.
    unit: [u8; 4],
    filled: usize,
    high: Option<u32>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Bytes in a unit, 2 or 4, and whether the highest comes first.
    Units(usize, bool),
    /// One byte each.
    Bytes(&'static encoding_rs::Encoding),
    Latin1,
}

/// Those that agree with git's iconv; in those of Windows, but for bytes that have no character.
const SINGLE_BYTE: [&str; 24] = [
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1253",
    "windows-1254",
    "windows-1256",
    "windows-1257",
    "koi8-r",
    "ibm866",
    "iso-8859-2",
    "iso-8859-3",
    "iso-8859-4",
    "iso-8859-5",
    "iso-8859-6",
    "iso-8859-7",
    "iso-8859-8",
    "iso-8859-10",
    "iso-8859-13",
    "iso-8859-14",
    "iso-8859-15",
    "iso-8859-16",
    "latin-1",
    "latin1",
    "iso-8859-1",
];

impl Decoder {
    /// The decoder of a `working-tree-encoding`.
    pub(super) fn named(name: &[u8]) -> Result<Self> {
        let shown = String::from_utf8_lossy(name).into_owned();
        let lower = shown.to_ascii_lowercase();
        let (kind, mark) = kind(&lower).ok_or_else(|| unknown(&shown))?;
        Ok(Self { kind, name: shown, mark, at_start: true, unit: [0; 4], filled: 0, high: None })
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        for byte in bytes {
            let Kind::Units(width, _) = self.kind else {
                let char = self.one(*byte).ok_or_else(|| self.malformed())?;
                put(char, out);
                continue;
            };
            self.unit[self.filled] = *byte;
            self.filled += 1;
            if self.filled == width {
                self.filled = 0;
                self.unit(width, out)?;
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let is_whole = self.filled == 0 && self.high.is_none();
        if self.at_start && self.mark == Mark::Needed {
            return Err(self.refused("has no byte order mark, which that encoding needs"));
        }
        if is_whole { Ok(()) } else { Err(self.malformed()) }
    }

    fn one(&self, byte: u8) -> Option<char> {
        let Kind::Bytes(encoding) = self.kind else { return Some(char::from(byte)) };
        if byte.is_ascii() {
            return Some(char::from(byte));
        }
        let bytes = [byte];
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes)?;
        // The web makes control characters of what has no character in a Windows code page.
        text.chars().next().filter(|c| !c.is_control() || encoding.name().starts_with("ISO"))
    }

    fn unit(&mut self, width: usize, out: &mut Vec<u8>) -> Result<()> {
        if std::mem::take(&mut self.at_start) {
            let [a, b, c, d] = self.unit;
            let mark = match (width, a, b, c, d) {
                (2, 0xfe, 0xff, _, _) | (4, 0, 0, 0xfe, 0xff) => Some(true),
                (2, 0xff, 0xfe, _, _) | (4, 0xff, 0xfe, 0, 0) => Some(false),
                _ => None,
            };
            match (mark, self.mark) {
                (Some(_), Mark::Refused) => {
                    return Err(self.refused("has a byte order mark, which that encoding has not"));
                }
                (None, Mark::Needed) => {
                    return Err(self.refused("has no byte order mark, which that encoding needs"));
                }
                (Some(big), _) => {
                    self.kind = Kind::Units(width, big);
                    return Ok(());
                }
                (None, _) => {}
            }
        }
        let bytes = self.unit[..width].iter();
        let fold = |unit: u32, byte: &u8| unit << 8 | u32::from(*byte);
        let unit = match self.kind {
            Kind::Units(_, true) => bytes.fold(0, fold),
            _ => bytes.rev().fold(0, fold),
        };
        let char = match (width, self.high.take(), unit) {
            (2, None, 0xd800..0xdc00) => {
                self.high = Some(unit);
                return Ok(());
            }
            (_, None, _) => char::from_u32(unit),
            (_, Some(high), 0xdc00..0xe000) => {
                char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00))
            }
            _ => None,
        };
        put(char.ok_or_else(|| self.malformed())?, out);
        Ok(())
    }

    fn malformed(&self) -> Error {
        self.refused("has bytes that are none of that encoding")
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(
            Reason::NotText,
            format!("`working-tree-encoding={}` is set for it, and it {why}", self.name),
        )
        .next("write the file in that encoding, or change its line of .gitattributes")
    }
}

fn put(char: char, out: &mut Vec<u8>) {
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

fn kind(lower: &str) -> Option<(Kind, Mark)> {
    if let Some(utf) = lower.strip_prefix("utf") {
        // Without a mark, `LE-BOM` is what the machine has: those that git runs on begin with the low byte.
        return Some(match utf.strip_prefix('-').unwrap_or(utf) {
            "16" => (Kind::Units(2, false), Mark::Needed),
            "16le" => (Kind::Units(2, false), Mark::Refused),
            "16be" => (Kind::Units(2, true), Mark::Refused),
            "16le-bom" => (Kind::Units(2, false), Mark::Allowed),
            "32" => (Kind::Units(4, false), Mark::Needed),
            "32le" => (Kind::Units(4, false), Mark::Refused),
            "32be" => (Kind::Units(4, true), Mark::Refused),
            _ => return None,
        });
    }
    let name = match (lower.strip_prefix("cp"), lower.strip_prefix("iso8859-")) {
        (Some("866"), _) => "ibm866".to_owned(),
        (Some(page), _) => format!("windows-{page}"),
        (_, Some(part)) => format!("iso-8859-{part}"),
        _ => lower.to_owned(),
    };
    if !SINGLE_BYTE.contains(&name.as_str()) {
        return None;
    }
    if matches!(name.as_str(), "latin-1" | "latin1" | "iso-8859-1") {
        return Some((Kind::Latin1, Mark::Allowed));
    }
    encoding_rs::Encoding::for_label(name.as_bytes()).map(|encoding| (Kind::Bytes(encoding), Mark::Allowed))
}

fn unknown(name: &str) -> Error {
    let message = format!("`working-tree-encoding={name}` is set for it, which a commit here does not read");
    Error::new(Reason::Unsupported, message)
        .with("encoding", name)
        .next("commit it with git in a mount, or change its line of .gitattributes")
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
