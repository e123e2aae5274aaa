//! Numbers and durations for people.

/// `1234567` as `1,234,567`.
#[must_use]
pub fn number(value: usize) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 cell`, `2,012 cells`.
#[must_use]
pub fn count(value: usize, noun: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", number(value))
}

/// `340 ms`, `12.3 s`, `2 min 05 s`.
#[must_use]
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// Seconds with one digit, for columns: `12.3s`.
#[must_use]
pub fn seconds(ms: u64) -> String {
    format!("{}.{}s", ms / 1_000, ms % 1_000 / 100)
}

/// Microseconds since the Unix epoch in RFC 3339, whole milliseconds.
#[must_use]
pub fn rfc3339(at_us: i64) -> String {
    let ms = jiff::Timestamp::from_millisecond(at_us.div_euclid(1_000)).unwrap_or_default();
    format!("{ms:.3}")
}

/// One line of it: line breaks and other control characters become spaces.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|part| !part.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts: Vec<_> = [0, 999, 1_000, 12_345, 1_234_567].into_iter().map(number).collect();
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!((count(1, "cell"), count(0, "cell")), ("1 cell".into(), "0 cells".into()));
    }

    #[test]
    fn durations_have_a_unit() {
        let texts: Vec<_> = [0, 999, 1_000, 59_999, 60_000, 125_400].into_iter().map(duration).collect();
        assert_eq!(texts, ["0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 00 s", "2 min 05 s"]);
        assert_eq!(seconds(12_345), "12.3s");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn control_characters_stay_out_of_lines() {
        assert_eq!(one_line(" a\tb\n\n\u{1b}[31mc "), "a b [31mc");
    }
}
