//! `strftime_now`: some templates tell the model what day it is.

use minijinja::{Error, ErrorKind};
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Now, in UTC, by the format codes that templates use: `%Y %m %d %B %b %H %M %S %%`.
#[expect(clippy::needless_pass_by_value, reason = "the form of a template's function")]
pub(super) fn now(format: String) -> Result<String, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    written(&format, seconds)
}

/// Seconds since 1970.
fn written(format: &str, seconds: u64) -> Result<String, Error> {
    let (year, month, day) = civil(seconds / 86400);
    let name = MONTHS[month as usize - 1];
    let (mut text, mut codes) = (String::new(), format.chars());
    while let Some(letter) = codes.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        text += &match codes.next() {
            Some('Y') => format!("{year}"),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => name.to_owned(),
            Some('b') => name[..3].to_owned(),
            Some('H') => format!("{:02}", seconds / 3600 % 24),
            Some('M') => format!("{:02}", seconds / 60 % 60),
            Some('S') => format!("{:02}", seconds % 60),
            Some('%') => "%".to_owned(),
            other => {
                let code = other.map_or_else(String::new, String::from);
                let message = format!("strftime_now: %{code} is not one of %Y %m %d %B %b %H %M %S");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        };
    }
    Ok(text)
}

/// Year, month and day, so many days behind 1970. Years begin in March here, so that leap days are their last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 1 March of the year 0
    let (era, of_era) = (days / 146_097, days % 146_097); // 400 years
    let year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153; // months since March
    let (day, month) = (of_year - (153 * march + 2) / 5 + 1, (march + 2) % 12 + 1);
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 Jan January 00:00:00 100%"),
            (951_782_400 + 86399, "2000-02-29 Feb February 23:59:59 100%"),
            (951_868_800, "2000-03-01 Mar March 00:00:00 100%"),
            (1_798_761_599, "2026-12-31 Dec December 23:59:59 100%"),
            (4_107_542_400, "2100-03-01 Mar March 00:00:00 100%"),
        ] {
            assert_eq!(written("%Y-%m-%d %b %B %H:%M:%S 100%%", seconds).unwrap(), expected);
        }
        let error = written("%j", 0).unwrap_err();
        assert_eq!(error.detail().unwrap(), "strftime_now: %j is not one of %Y %m %d %B %b %H %M %S");
    }
}
