//! Page tokens: where a list goes on, bound to the query they were made for. Opaque to callers.

use afs_types::{Error, Reason, Result};

const VERSION: u8 = 1;
const PRINT: usize = 8;

/// The token for what comes after `last` in the list that `query` describes.
pub(crate) fn encode(query: &[&str], last: Option<String>) -> String {
    let Some(last) = last else { return String::new() };
    let mut bytes = vec![VERSION];
    bytes.extend(print(query));
    bytes.extend(last.as_bytes());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Where to go on; none for the first page.
pub(crate) fn decode(query: &[&str], token: &str) -> Result<Option<String>> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        Error::new(Reason::InvalidPageToken, "page_token: not a token of this list")
            .with("field", "page_token")
    };
    let bytes = unhex(token).filter(|b| b.len() > PRINT + 1 && b[0] == VERSION).ok_or_else(wrong)?;
    let (head, last) = bytes.split_at(PRINT + 1);
    if head[1..] != print(query) {
        return Err(wrong());
    }
    String::from_utf8(last.to_vec()).map(Some).map_err(|_| wrong())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 16 << 10 || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// What binds a token to its query; not a secret.
fn print(query: &[&str]) -> [u8; PRINT] {
    let mut hasher = blake3::Hasher::new();
    for part in query {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let mut out = [0; PRINT];
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_their_query() {
        let token = encode(&["list", "a=b"], Some("sess_x".into()));
        assert_eq!(decode(&["list", "a=b"], &token).unwrap().as_deref(), Some("sess_x"));
        assert_eq!(decode(&["list"], "").unwrap(), None);
        assert_eq!(encode(&["list"], None), "");
        for bad in [token.as_str(), "zz", "0", "00", "é", &"0".repeat(100_000), &token[..token.len() - 1]] {
            assert_eq!(decode(&["list", "a=c"], bad).unwrap_err().reason, Reason::InvalidPageToken, "{bad}");
        }
    }
}
