//! Percent-encoding, strictly: what is not an encoding is refused, nothing is replaced.

use super::shape::invalid;
use afs_types::{Error, Reason, Result};

/// The bytes that a percent-encoded text stands for.
pub fn decode(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => {
                return Err(Error::new(
                    Reason::InvalidArgument,
                    "url: want two hexadecimal digits after '%'",
                )
                .with("field", "url"));
            }
        }
    }
    Ok(out)
}

/// Names and values of a query, in order; `+` is a space.
pub fn query_pairs(query: &str) -> Result<Vec<(String, String)>> {
    let text = |name: &str, part: &str| {
        let bytes = decode(&part.replace('+', "%20"))?;
        String::from_utf8(bytes).map_err(|_| invalid(name, "UTF-8; write other bytes of a path as %25XX"))
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((text("query", name)?, text(name, value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encodings_are_decoded() {
        assert_eq!(decode("a%20b%FF%2f").unwrap(), b"a b\xff/");
        for bad in ["%", "%1", "%zz", "a%+1"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        let pairs = query_pairs("a=1&b=x+y%26&&c").unwrap();
        assert_eq!(pairs, [("a", "1"), ("b", "x y&"), ("c", "")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert!(query_pairs("path=%FF").is_err());
    }
}
