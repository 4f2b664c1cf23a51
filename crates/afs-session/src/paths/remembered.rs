//! Entries in remembered answers: a request that is sent again is told the entry that its first attempt left, not the one that is there now.
//! With another's etag in the answer, who retries would overwrite what that other wrote.
//!
//! An entry is one word of text: `-` for none, else fields with a space between, in the order of [`to_word`]; what may be absent is `-`, bytes are hexadecimal.
//! Answers from before entries were kept have no such word; then the entry of now is told, without an etag.

use super::entry::Entry;
use afs_core::tree::Attr;
use afs_types::{BlobId, Error, Reason, Result, SessionPath};
use std::str::FromStr;

const NONE: &str = "-";

/// The form in which an entry is kept.
pub(super) fn to_word(entry: Option<&Entry>) -> String {
    let Some(Entry { attr, etag, blob, target, base, path: _ }) = entry else { return NONE.to_owned() };
    let blob = blob.map_or_else(|| NONE.to_owned(), |id| id.to_hex());
    let target = target.as_ref().map_or_else(|| NONE.to_owned(), |bytes| hex(bytes));
    let numbers = [attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev].map(|n| n.to_string()).join(" ");
    let Attr { ino, size, blocks, atime_ns, mtime_ns, ctime_ns, version, .. } = attr;
    format!(
        "{ino} {numbers} {size} {blocks} {atime_ns} {mtime_ns} {ctime_ns} {version} {base} {blob} {target} {etag}"
    )
}

/// The entry of a word, under the path that the request names.
pub(super) fn from_word(word: &str, path: &SessionPath) -> Result<Option<Entry>> {
    if word == NONE {
        return Ok(None);
    }
    let mut fields = word.split(' ');
    let entry = read(&mut fields, path).filter(|_| fields.next().is_none());
    entry
        .map(Some)
        .ok_or_else(|| Error::new(Reason::Corrupt, "a remembered answer has no entry that can be read"))
}

fn read<'a>(fields: &mut impl Iterator<Item = &'a str>, path: &SessionPath) -> Option<Entry> {
    let attr = Attr {
        ino: next(fields)?,
        mode: next(fields)?,
        nlink: next(fields)?,
        uid: next(fields)?,
        gid: next(fields)?,
        rdev: next(fields)?,
        size: next(fields)?,
        blocks: next(fields)?,
        atime_ns: next(fields)?,
        mtime_ns: next(fields)?,
        ctime_ns: next(fields)?,
        version: next(fields)?,
    };
    let base = next(fields)?;
    let blob = match fields.next()? {
        NONE => None,
        hex => Some(BlobId::from_hex(hex)?),
    };
    let target = match fields.next()? {
        NONE => None,
        hex => Some(bytes(hex)?),
    };
    Some(Entry { path: path.clone(), attr, etag: fields.next()?.to_owned(), blob, target, base })
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

fn next<'a, T: FromStr>(fields: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    fields.next()?.parse().ok()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_and_damage_is_found() {
        let path = SessionPath::parse(b"/a b").unwrap();
        let attr = Attr {
            ino: 7,
            mode: 0o100_644,
            nlink: 1,
            uid: 2,
            gid: 3,
            rdev: 4,
            size: u64::MAX,
            blocks: 5,
            atime_ns: -6,
            mtime_ns: i64::MIN,
            ctime_ns: 8,
            version: 9,
        };
        let file = Entry {
            path: path.clone(),
            attr,
            etag: "v9-7".into(),
            blob: Some(BlobId([3; 32])),
            target: None,
            base: false,
        };
        let link = Entry { target: Some(b"\xff \0-".to_vec()), blob: None, base: true, ..file.clone() };
        let empty = Entry { etag: String::new(), ..link.clone() };
        for entry in [file, link, empty] {
            let word = to_word(Some(&entry));
            assert_eq!(from_word(&word, &path).unwrap().as_ref(), Some(&entry));
            let cut = word.rsplit_once(' ').unwrap().0;
            for bad in [cut, &format!("{word} x"), &format!("x{word}"), ""] {
                assert_eq!(from_word(bad, &path).unwrap_err().reason, Reason::Corrupt, "{bad:?}");
            }
        }
        assert_eq!(from_word(&to_word(None), &path).unwrap(), None);
    }
}
