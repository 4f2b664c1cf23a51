//! Page tokens: where a list goes on, bound to the query that it belongs to.
//!
//! A token is hexadecimal: 8 bytes of a hash over query and position, then the position. The hash is no secret and no
//! protection; it catches tokens that were cut, mixed up or made up.

use afs_types::{Error, Reason, Result};

/// The token for going on after `position`.
pub(super) fn encode(query: &[&[u8]], position: &[u8]) -> String {
    let bytes = [&check(query, position)[..], position].concat();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The position in a token; none for the first page.
pub(super) fn decode(query: &[&[u8]], token: &str) -> Result<Option<Vec<u8>>> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = unhex(token).ok_or_else(bad)?;
    let (sum, position) = bytes.split_first_chunk::<8>().ok_or_else(bad)?;
    if *sum != check(query, position) {
        return Err(bad());
    }
    Ok(Some(position.to_vec()))
}

fn bad() -> Error {
    Error::new(Reason::InvalidPageToken, "page_token is not one that this list returned")
        .with("field", "page_token")
}

fn check(query: &[&[u8]], position: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in query.iter().chain([&position]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|p| Some((digit(p[0])? * 16 + digit(p[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_fit_their_query_only() {
        let token = encode(&[b"list", b"/a"], b"b/\xff");
        assert_eq!(decode(&[b"list", b"/a"], &token).unwrap().unwrap(), b"b/\xff");
        assert_eq!(decode(&[b"list", b"/a"], "").unwrap(), None);
        for (query, bad) in [
            (&[&b"list"[..], b"/b"], token.as_str()),
            (&[b"list/", b"a"], &token),
            (&[b"list", b"/a"], &token[1..]),
            (&[b"list", b"/a"], &token[..token.len() - 2]),
            (&[b"list", b"/a"], "zz"),
            (&[b"list", b"/a"], "é0"),
        ] {
            assert_eq!(decode(query, bad).unwrap_err().reason, Reason::InvalidPageToken, "{bad}");
        }
    }
}
