//! Numbers as JSON writes them, taken as integers: exactly, or not at all.
//!
//! proto3 JSON takes `493.0` and `1e2` for integers, as numbers and in quotes, and nothing that JSON would not call a number: no `+0`, no
//! `007`, no white space. A detour over binary fractions would round from 2^53 on, so there is none.

/// The most digits of an integer of 64 bits.
const MAX_DIGITS: usize = 20;

/// The integer that a JSON number stands for; none if it is no number, or not an integer, or far beyond 64 bits.
pub(super) fn integer(text: &str) -> Option<i128> {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, part) = mantissa.split_once('.').map_or((mantissa, None), |(w, p)| (w, Some(p)));
    let unsigned = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let is_number = is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && part.is_none_or(is_digits)
        && unsigned.is_none_or(is_digits);
    if !is_number {
        return None;
    }
    let part = part.unwrap_or("");
    let digits = [whole, part].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    // All but the zeros at the end, times a power of ten.
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent: i64 = exponent.map_or(Some(0), |e| e.parse().ok())?;
    let power = exponent.checked_add(zeros)?.checked_sub(i64::try_from(part.len()).ok()?)?;
    let power = u32::try_from(power).ok()?;
    if significant.len().saturating_add(power as usize) > MAX_DIGITS {
        return None;
    }
    let number = significant.parse::<i128>().ok()? * 10_i128.pow(power);
    Some(if is_negative { -number } else { number })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_however_they_are_written() {
        for (text, want) in [
            ("0", 0),
            ("-0", 0),
            ("0.000", 0),
            ("0e99999999999999999999", 0),
            ("493", 493),
            ("493.0", 493),
            ("1e2", 100),
            ("1E+2", 100),
            ("-1.5e1", -15),
            ("120e-1", 12),
            ("0.0012e4", 12),
            ("9007199254740993", (1 << 53) + 1),
            ("9007199254740993.0", (1 << 53) + 1),
            ("9.007199254740993e15", (1 << 53) + 1),
            ("18446744073709551615", i128::from(u64::MAX)),
            ("-9223372036854775808", i128::from(i64::MIN)),
            ("1844674407370955161500000e-5", i128::from(u64::MAX)),
        ] {
            assert_eq!(integer(text), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_integer_is_none() {
        for bad in [
            "",
            "-",
            "+0",
            "+1",
            "007",
            "-01",
            " 1",
            "1 ",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1e1.0",
            "0x10",
            "1_000",
            "--1",
            "0.5",
            "1.5",
            "15e-1",
            "1e-400",
            "1.00000000000000000001",
            "9007199254740993.5",
            "1e21",
            "1e999",
            "1e99999999999999999999",
            "123456789012345678901",
            "NaN",
            "Infinity",
            "١",
        ] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }
}
