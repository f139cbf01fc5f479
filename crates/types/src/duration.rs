//! ISO 8601 durations of whole days (`P90D`, `P18M`, `P1Y6M`), as rotation policies use them (contract 10.4), and the
//! calendar arithmetic that they need. Time of day is kept; a day that a month does not have becomes the month's last.

const DAY: u64 = 86_400;

/// Longest duration: a hundred years, beyond which no date is meaningful.
const YEARS_MAX: u32 = 100;

/// A duration in calendar months and days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsoDuration {
    months: u32,
    days: u32,
}

impl IsoDuration {
    /// Parses `P[nY][nM][nW][nD]`; anything else, also parts of a day, is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix(['P', 'p'])?;
        let (mut months, mut days, mut last) = (0u32, 0u32, 0);
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at_checked(digits)?;
            let number: u32 = number.parse().ok()?;
            let unit = tail.chars().next()?.to_ascii_uppercase();
            let rank = match unit {
                'Y' => 1,
                'M' => 2,
                'W' => 3,
                'D' => 4,
                _ => return None,
            };
            if rank <= last {
                return None;
            }
            last = rank;
            match unit {
                'Y' => months = months.checked_add(number.checked_mul(12)?)?,
                'M' => months = months.checked_add(number)?,
                'W' => days = days.checked_add(number.checked_mul(7)?)?,
                _ => days = days.checked_add(number)?,
            }
            rest = tail.get(1..)?;
        }
        (months <= YEARS_MAX * 12 && days <= YEARS_MAX * 366).then_some(Self { months, days })
    }

    /// The fewest days that it can be: what minimums are checked against.
    pub fn days_min(self) -> u32 {
        // 365 days in twelve months; 28 in the shortest single one.
        let years = self.months / 12 * 365;
        let rest = (self.months % 12) * 30;
        let rest = if self.months.is_multiple_of(12) { 0 } else { rest.saturating_sub(2) };
        years + rest + self.days
    }

    /// The most days that it can be.
    pub fn days_max(self) -> u32 {
        // Of each four years one has 366 days; the longest months have 31.
        let (years, months) = (self.months / 12, self.months % 12);
        years * 365 + years.div_ceil(4) + months * 31 + self.days
    }

    /// Whether it is longer than another one by so many days, wherever in the calendar the two begin: exactly so where both
    /// have the same number of months.
    pub fn always_exceeds(self, other: Self, days: u32) -> bool {
        let (own, others) = match self.months == other.months {
            true => (self.days, other.days),
            false => (self.days_min(), other.days_max()),
        };
        own >= others.saturating_add(days)
    }

    /// `seconds` since 1970, later by this.
    pub fn after(self, seconds: u64) -> u64 {
        let moved = add_months(seconds, i64::from(self.months));
        moved.saturating_add(u64::from(self.days) * DAY)
    }

    /// `seconds` since 1970, earlier by this; never before 1970.
    pub fn before(self, seconds: u64) -> u64 {
        add_months(seconds.saturating_sub(u64::from(self.days) * DAY), -i64::from(self.months))
    }
}

fn add_months(seconds: u64, months: i64) -> u64 {
    let (days, time) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(i64::MAX / 2));
    let total = year * 12 + (month - 1) + months;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
    let day = day.min(month_days(year, month));
    u64::try_from(days_from_civil(year, month, day)).map_or(0, |days| days.saturating_mul(DAY).saturating_add(time))
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, by eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `YYYY-MM-DDThh:mm:ssZ` (RFC 3339) of seconds since 1970.
pub fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = civil(i64::try_from(seconds / DAY).unwrap_or(0));
    let time = seconds % DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// Seconds since 1970 of an RFC 3339 date, its fraction dropped. Nothing before 1970 and no leap second.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_at_checked(10)?;
    let number = |text: &str, low: i64, high: i64| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|n| digits && (low..=high).contains(n))
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, day) = (number(year, 1970, 9999)?, number(month, 1, 12)?, number(day, 1, 31)?);
    let days = days_from_civil(year, month, day);
    if civil(days) != (year, month, day) {
        return None;
    }
    let (clock, rest) = time.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let (hour, minute, second) = (number(hour, 0, 23)?, number(minute, 0, 59)?, number(second, 0, 59)?);
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, hours_minutes) = zone.split_at_checked(1)?;
            let (hours, minutes) = hours_minutes.split_once(':')?;
            let minutes = number(hours, 0, 23)? * 60 + number(minutes, 0, 59)?;
            match sign {
                "+" => minutes * 60,
                "-" => -minutes * 60,
                _ => return None,
            }
        }
    };
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
        u64::try_from(days_from_civil(part(0..4), part(5..7), part(8..10))).unwrap() * DAY
    }

    #[test]
    fn parses() {
        let of = |text| IsoDuration::parse(text).map(|d| (d.months, d.days));
        assert_eq!(of("P90D"), Some((0, 90)));
        assert_eq!(of("P1Y6M"), Some((18, 0)));
        assert_eq!(of("P2W"), Some((0, 14)));
        for bad in ["", "P", "90D", "P1", "PD", "P1D1M", "PT1H", "P1DT1H", "P-1D", "P1.5D", "P200Y", "P99999999999D"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn calendar_months() {
        let month = IsoDuration::parse("P1M").unwrap();
        assert_eq!(month.after(at("2023-01-31") + 5), at("2023-02-28") + 5);
        assert_eq!(month.after(at("2024-01-31")), at("2024-02-29"));
        assert_eq!(month.before(at("2024-03-31")), at("2024-02-29"));
        assert_eq!(IsoDuration::parse("P1Y").unwrap().after(at("2024-02-29")), at("2025-02-28"));
        assert_eq!(IsoDuration::parse("P30D").unwrap().before(at("2024-03-01")), at("2024-01-31"));
        assert_eq!(IsoDuration::parse("P100Y").unwrap().before(at("1980-01-01")), 0);
    }

    #[test]
    fn dates_round_trip() {
        for day in (-1_000_000..1_000_000).step_by(97) {
            let (y, m, d) = civil(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
        assert_eq!(rfc3339(1_662_161_342), "2022-09-02T23:29:02Z");
        for same in ["2022-09-02T23:29:02Z", "2022-09-02T23:29:02.123456Z", "2022-09-03T01:29:02+02:00"] {
            assert_eq!(parse_rfc3339(same), Some(1_662_161_342), "{same}");
        }
        for bad in ["", "2022-09-02", "2022-02-30T00:00:00Z", "2022-09-02T23:29:02", "2022-09-02T24:00:00Z", "ü"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
