//! Lists in the values of headers (RFC 9110 §5.6): elements with commas between, parameters behind semicolons, texts in quotes.

/// The parts of a text between separators that are not inside of a quoted string, without white space around them.
pub(super) fn parts(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut in_quotes, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_quotes => is_escaped = true,
            b'"' => in_quotes = !in_quotes,
            _ if byte == separator && !in_quotes => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// `name=value`, also with white space around the sign; the value without its quotes.
pub(super) fn pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim();
    Some((name.trim(), value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_strings_are_not_parted() {
        assert_eq!(parts("a, b ;c,\"d,e\\\",f\" ,", b','), ["a", "b ;c", "\"d,e\\\",f\"", ""]);
        assert_eq!(parts("", b','), [""]);
        assert_eq!(parts("a;\"b\\", b';'), ["a", "\"b\\"]);
        assert_eq!(pair("q = \"0.5\""), Some(("q", "0.5")));
        assert_eq!((pair("q=1"), pair("q")), (Some(("q", "1")), None));
    }
}
