//! When a request began, as text: RFC 3339 with milliseconds, in UTC.

const DAY_SECONDS: u64 = 86_400;

/// Formats moments; those of one second share the work.
#[derive(Debug)]
pub(super) struct Stamp {
    second: u64,
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }
}

impl Stamp {
    /// The text of a moment, in milliseconds since 1970; years beyond 9999 show their last four digits.
    pub(super) fn at(&mut self, unix_ms: u64) -> &[u8; 24] {
        let (second, ms) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            self.second = second;
            self.whole(second);
        }
        digits(&mut self.text[20..23], ms);
        &self.text
    }

    fn whole(&mut self, second: u64) {
        let (year, month, day) = date(second / DAY_SECONDS);
        let of_day = second % DAY_SECONDS;
        let parts = [
            (0..4, year % 10_000),
            (5..7, month),
            (8..10, day),
            (11..13, of_day / 3600),
            (14..16, of_day / 60 % 60),
            (17..19, of_day % 60),
        ];
        for (place, value) in parts {
            digits(&mut self.text[place], value);
        }
    }
}

/// Decimal digits of `value` that fill `place`, the lowest last.
fn digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year: 400 of them have 146 097 days, and the
/// months from March on start at day `(153 * month + 2) / 5`.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_rfc_3339_says() {
        let mut stamp = Stamp::default();
        let mut text = |ms| String::from_utf8(stamp.at(ms).to_vec()).unwrap();
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(text(951_782_400_999), "2000-02-29T00:00:00.999Z");
        assert_eq!(text(1_796_047_238_123), "2026-11-30T14:00:38.123Z");
        assert_eq!(text(4_107_542_399_000), "2100-02-28T23:59:59.000Z");
        assert_eq!(text(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(text(999), "1970-01-01T00:00:00.999Z");
        text(u64::MAX);
    }

    #[test]
    fn days_follow_each_other_for_four_hundred_years() {
        let mut before = date(0);
        for day in 1..=146_097 {
            let (year, month, of_month) = date(day);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match before.1 {
                4 | 6 | 9 | 11 => 30,
                2 if leap => 29,
                2 => 28,
                _ => 31,
            };
            let next = match before {
                (y, 12, 31) => (y + 1, 1, 1),
                (y, m, d) if d == last => (y, m + 1, 1),
                (y, m, d) => (y, m, d + 1),
            };
            assert_eq!((year, month, of_month), next);
            before = next;
        }
        assert_eq!(before, (2370, 1, 1));
    }
}
