//! Numbers as people read them. JSON always has the raw ones.

use std::time::Duration;

/// Bytes in binary units with three digits: `999 B`, `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Two most significant units of a span: `12s`, `4m12s`, `3d4h`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

/// Microseconds with about three digits: `850 us`, `12.3 ms`, `1.25 s`.
pub fn micros(us: f64) -> String {
    match us {
        ..999.5 => format!("{us:.0} us"),
        ..99_950.0 => format!("{:.1} ms", us / 1e3),
        ..999_500.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// A fraction as percent, one decimal: `33.3 %`.
pub fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// Part of a whole; 0 of nothing.
pub fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// A count with thin groups: `1 234 567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_show_1024_of_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(12_900_000), "12.3 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn times_are_shown_in_the_unit_that_needs_few_digits() {
        assert_eq!(micros(0.4), "0 us");
        assert_eq!(micros(999.4), "999 us");
        assert_eq!(micros(999.6), "1.0 ms");
        assert_eq!(micros(99_960.0), "100 ms");
        assert_eq!(micros(1_250_000.0), "1.25 s");
    }

    #[test]
    fn a_span_shows_its_two_largest_units() {
        let text = |s| span(Duration::from_secs(s));
        assert_eq!(text(0), "0s");
        assert_eq!(text(252), "4m12s");
        assert_eq!(text(3_600), "1h0m");
        assert_eq!(text(4 * 86_400 + 7_199), "4d1h");
    }

    #[test]
    fn counts_are_grouped_from_the_right() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1 000");
        assert_eq!(count(1_234_567), "1 234 567");
    }
}
