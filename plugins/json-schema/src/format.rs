//! The formats that are checked where the configuration asks for it; others hold always, as the specification says.

use std::sync::LazyLock;

use regex::Regex;

static EMAIL: LazyLock<Regex> = LazyLock::new(|| sound(r"^[^\s@]+@[^\s@]+$"));
static HOST: LazyLock<Regex> = LazyLock::new(|| {
    sound(
        r"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
    )
});
static URI: LazyLock<Regex> = LazyLock::new(|| sound(r#"^[A-Za-z][A-Za-z0-9+.-]*:[^\s<>"{}|\\^`]+$"#));
static UUID: LazyLock<Regex> =
    LazyLock::new(|| sound("(?i)^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"));
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    sound(
        r"^P(?:\d+W|(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)?(?:T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S))?)$",
    )
});
static DATE: LazyLock<Regex> = LazyLock::new(|| sound("^([0-9]{4})-([0-9]{2})-([0-9]{2})$"));
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    sound(r"(?i)^([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:z|[+-]([0-9]{2}):([0-9]{2}))$")
});

fn sound(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a sound pattern")
}

/// Whether `text` is of `format`.
pub fn holds(format: &str, text: &str) -> bool {
    match format {
        "date" => is_date(text),
        "time" => is_time(text),
        "date-time" => text.split_once(['T', 't']).is_some_and(|(date, time)| is_date(date) && is_time(time)),
        "duration" => DURATION.is_match(text) && text.len() > 1 && !text.ends_with('T'),
        "email" => EMAIL.is_match(text),
        "hostname" => text.len() <= 253 && HOST.is_match(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uri" => URI.is_match(text),
        "uuid" => UUID.is_match(text),
        "regex" => Regex::new(text).is_ok(),
        "json-pointer" => {
            let escapes = |part: &str| part.split('~').skip(1).all(|it| it.starts_with(['0', '1']));
            text.is_empty() || (text.starts_with('/') && escapes(text))
        }
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    let Some(found) = DATE.captures(text) else { return false };
    let [year, month, day] = [1, 2, 3].map(|at| found[at].parse::<u32>().unwrap_or(0));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn is_time(text: &str) -> bool {
    let Some(found) = TIME.captures(text) else { return false };
    let part = |at: usize| found.get(at).map_or(0, |it| it.as_str().parse::<u32>().unwrap_or(99));
    // A leap second stands at the end of a day only; which one that is depends on the offset.
    part(1) < 24 && part(2) < 60 && part(3) <= 60 && part(4) < 24 && part(5) < 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_and_fail_where_they_should() {
        let good = [
            ("date", "2024-02-29"),
            ("date-time", "2024-01-01T23:59:59.5+08:00"),
            ("duration", "P1Y2M3DT4H"),
            ("email", "a@b.cn"),
            ("ipv4", "127.0.0.1"),
            ("ipv6", "::1"),
            ("uri", "https://a.b/c?d=e"),
            ("uuid", "2EB8AA08-aa98-11ea-b4aa-73b441d16380"),
            ("hostname", "a-b.example"),
            ("json-pointer", "/a~1b"),
            ("unknown", "anything"),
        ];
        let bad = [
            ("date", "2023-02-29"),
            ("date-time", "2024-01-01 00:00:00Z"),
            ("duration", "P"),
            ("duration", "PT"),
            ("email", "a b@c"),
            ("ipv4", "256.0.0.1"),
            ("ipv6", "12345::"),
            ("uri", "/relative"),
            ("uuid", "2eb8aa08"),
            ("hostname", "-a"),
            ("json-pointer", "/a~2"),
            ("regex", "("),
        ];
        good.iter().for_each(|(format, text)| assert!(holds(format, text), "{format} {text}"));
        bad.iter().for_each(|(format, text)| assert!(!holds(format, text), "{format} {text}"));
    }
}
