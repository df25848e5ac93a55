//! Numbers as people and models write them, compared exactly where that is possible.

use crate::numerals;

pub use crate::find::{all, last, whole};

/// A number: its value, and a fraction in lowest terms where it is one of 128 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    value: f64,
    fraction: Option<(i128, i128)>,
}

impl Number {
    /// `numerator / denominator`; `None` for a denominator of 0.
    pub fn ratio(numerator: i128, denominator: i128) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        if denominator == 1 {
            return Some(Self { value: numerator as f64, fraction: Some((numerator, 1)) });
        }
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).ok()? * denominator.signum();
        let (numerator, denominator) = (numerator / divisor, denominator / divisor);
        Some(Self { value: numerator as f64 / denominator as f64, fraction: Some((numerator, denominator)) })
    }

    /// A number known as a float only; `None` unless it is finite.
    pub fn float(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self { value, fraction: None })
    }

    /// Decimal digits, with at most one point, and a power of ten.
    pub(crate) fn decimal(digits: &str, exponent: i32) -> Option<Self> {
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let exact = || {
            let unscaled =
                if part.is_empty() { unsigned(whole)? } else { unsigned(&format!("{whole}{part}"))? };
            let scale = exponent.checked_sub(i32::try_from(part.len()).ok()?)?;
            let power = 10i128.checked_pow(scale.unsigned_abs())?;
            if scale < 0 {
                Self::ratio(unscaled, power)
            } else {
                Self::ratio(unscaled.checked_mul(power)?, 1)
            }
        };
        exact().or_else(|| Self::float(format!("{whole}.{part}0e{exponent}").parse().ok()?))
    }

    /// The nearest double.
    pub fn value(self) -> f64 {
        self.value
    }

    /// Whether it is an integer.
    pub fn is_whole(self) -> bool {
        self.fraction.map_or(self.value.fract() == 0.0, |it| it.1 == 1)
    }

    /// Equal within `absolute` or within `relative` of the other's size; exactly equal where both are 0.
    pub fn close_to(self, other: Self, absolute: f64, relative: f64) -> bool {
        match (self.fraction, other.fraction) {
            (Some(a), Some(b)) if a == b => true,
            (Some(_), Some(_)) if absolute == 0.0 && relative == 0.0 => false,
            _ => (self.value - other.value).abs() <= absolute.max(relative * other.value.abs()),
        }
    }

    fn combine(
        self,
        other: Self,
        exact: impl Fn((i128, i128), (i128, i128)) -> Option<(i128, i128)>,
        float: impl Fn(f64, f64) -> f64,
    ) -> Option<Self> {
        let fraction = self.fraction.zip(other.fraction).and_then(|(a, b)| exact(a, b));
        match fraction {
            Some((numerator, denominator)) => Self::ratio(numerator, denominator),
            None => Self::float(float(self.value, other.value)),
        }
    }

    /// The sum; `None` where it is not finite.
    pub fn plus(self, other: Self) -> Option<Self> {
        let exact = |(a, b): (i128, i128), (c, d): (i128, i128)| {
            Some((a.checked_mul(d)?.checked_add(c.checked_mul(b)?)?, b.checked_mul(d)?))
        };
        self.combine(other, exact, |a, b| a + b)
    }

    /// The product; `None` where it is not finite.
    pub fn times(self, other: Self) -> Option<Self> {
        let exact = |(a, b): (i128, i128), (c, d): (i128, i128)| Some((a.checked_mul(c)?, b.checked_mul(d)?));
        self.combine(other, exact, |a, b| a * b)
    }

    /// The quotient; `None` for a divisor of 0.
    pub fn over(self, other: Self) -> Option<Self> {
        if other.value == 0.0 {
            return None;
        }
        let exact = |(a, b): (i128, i128), (c, d): (i128, i128)| Some((a.checked_mul(d)?, b.checked_mul(c)?));
        self.combine(other, exact, |a, b| a / b)
    }

    /// The opposite.
    pub fn negated(self) -> Self {
        Self { value: -self.value, fraction: self.fraction.map(|(a, b)| (-a, b)) }
    }
}

/// Digits as a number; 18 of them fit in 64 bits, whose arithmetic is faster.
fn unsigned(digits: &str) -> Option<i128> {
    if digits.len() <= 18 { digits.parse::<i64>().ok().map(i128::from) } else { digits.parse().ok() }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// A number found in a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// As written: `50%` is 50.
    pub number: Number,
    /// Whether a percent sign follows, or `百分之` stands before.
    pub percent: bool,
}

/// What stands between digits and in front of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decimal {
    /// `1,234.5`.
    #[default]
    Point,
    /// `1.234,5`.
    Comma,
}

pub(crate) const CURRENCIES: [char; 5] = ['$', '€', '£', '¥', '₹'];

/// The number that begins at `from`, and where it ends.
pub(crate) fn at(text: &str, from: usize) -> Option<(Found, usize)> {
    let mut rest = &text[from..];
    let mut negative = false;
    let mut percent = false;
    // `-$5` and `$-5`.
    for _ in 0..2 {
        if let Some(after) = rest.strip_prefix(['-', '+']) {
            negative ^= rest.starts_with('-');
            rest = after;
        } else if let Some(after) = rest.strip_prefix(['负', '負']) {
            negative ^= true;
            rest = after;
        }
        rest = rest.strip_prefix(CURRENCIES).unwrap_or(rest);
    }
    if let Some(after) = rest.strip_prefix("百分之") {
        percent = true;
        rest = after;
    }
    let (number, used) = fraction_command(rest).or_else(|| numerals::at(rest)).or_else(|| arabic(rest))?;
    rest = &rest[used..];
    let unspaced = rest.trim_start_matches(' ');
    if let Some(after) = unspaced.strip_prefix('%') {
        percent = true;
        rest = after;
    }
    let number = if negative { number.negated() } else { number };
    Some((Found { number, percent }, text.len() - rest.len()))
}

/// `\frac{3}{4}` and `\frac34`.
fn fraction_command(text: &str) -> Option<(Number, usize)> {
    let rest = text.strip_prefix("\\frac")?;
    let (numerator, rest) = argument(rest)?;
    let (denominator, rest) = argument(rest)?;
    let [above, below] = [numerator, denominator].map(|it| {
        let (found, end) = at(it.trim(), 0)?;
        (end == it.trim().len()).then_some(found.number)
    });
    Some((above?.over(below?)?, text.len() - rest.len()))
}

fn argument(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('{') {
        Some(inside) => inside.split_once('}'),
        None => {
            let digit = text.chars().next().filter(char::is_ascii_digit)?;
            Some(text.split_at(digit.len_utf8()))
        }
    }
}

/// Digits with what may follow them: a power of ten, a fraction, a unit of ten thousand.
fn arabic(text: &str) -> Option<(Number, usize)> {
    let (mut number, mut used) = match vulgar(text) {
        Some(it) => return Some(it),
        None => scientific(text)?,
    };
    let rest = &text[used..];
    // A mixed number: `1 3/4`, `1½`, `1\frac{3}{4}`.
    let spaced = rest.trim_start_matches(' ');
    let part = vulgar(rest).or_else(|| fraction_command(rest)).map(|it| (it, rest)).or_else(|| {
        let (part, end) = (spaced.len() < rest.len()).then(|| simple_fraction(spaced)).flatten()?;
        Some(((part, end), spaced))
    });
    if let Some(((part, end), rest)) = part {
        number = number.plus(part)?;
        return Some((number, text.len() - rest.len() + end));
    }
    if let Some((fraction, end)) = simple_fraction(text) {
        return Some((fraction, end));
    }
    while let Some((unit, end)) = numerals::large_unit(&text[used..]) {
        number = number.times(unit)?;
        used += end;
    }
    Some((number, used))
}

pub(crate) const VULGAR: [(char, i128, i128); 17] = [
    ('½', 1, 2),
    ('⅓', 1, 3),
    ('⅔', 2, 3),
    ('¼', 1, 4),
    ('¾', 3, 4),
    ('⅕', 1, 5),
    ('⅖', 2, 5),
    ('⅗', 3, 5),
    ('⅘', 4, 5),
    ('⅙', 1, 6),
    ('⅚', 5, 6),
    ('⅛', 1, 8),
    ('⅜', 3, 8),
    ('⅝', 5, 8),
    ('⅞', 7, 8),
    ('⅐', 1, 7),
    ('⅒', 1, 10),
];

fn vulgar(text: &str) -> Option<(Number, usize)> {
    let first = text.chars().next()?;
    let (_, above, below) = VULGAR.into_iter().find(|it| it.0 == first)?;
    Some((Number::ratio(above, below)?, first.len_utf8()))
}

/// `3/4`, of digits only; a date (`3/4/2020`) is none.
fn simple_fraction(text: &str) -> Option<(Number, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let above = digits(text);
    let rest = text[above..].trim_start_matches(' ').strip_prefix(['/', '⁄'])?.trim_start_matches(' ');
    let below = digits(rest);
    if above == 0 || below == 0 || rest[below..].starts_with('/') {
        return None;
    }
    let number = Number::ratio(text[..above].parse().ok()?, rest[..below].parse().ok()?)?;
    Some((number, text.len() - rest.len() + below))
}

/// Decimal digits, then `e5`, `×10^5`, `x 10^{-5}` or nothing.
fn scientific(text: &str) -> Option<(Number, usize)> {
    let (digits, used) = grouped(text)?;
    let rest = &text[used..];
    let (exponent, more) = exponent(rest).unwrap_or((0, 0));
    Some((Number::decimal(&digits, exponent)?, used + more))
}

fn exponent(text: &str) -> Option<(i32, usize)> {
    let signed = |text: &str| -> Option<(i32, usize)> {
        let sign = usize::from(text.starts_with(['+', '-']));
        let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then_some(())?;
        Some((text[..sign + digits].parse().ok()?, sign + digits))
    };
    if let Some(rest) = text.strip_prefix(['e', 'E']) {
        return signed(rest).map(|(value, end)| (value, end + 1));
    }
    let rest = text.trim_start_matches(' ').strip_prefix(['×', '*', 'x'])?;
    let rest = rest.trim_start_matches(' ').strip_prefix("10^")?;
    let (inside, braces) = rest.strip_prefix('{').map_or((rest, 0), |it| (it, 1));
    let (value, end) = signed(inside)?;
    let after = &inside[end..];
    let after = if braces == 1 { after.strip_prefix('}')? } else { after };
    Some((value, text.len() - after.len()))
}

/// Digits without their separators, and how many bytes they take: `1,234,567.8`, `12 345`, `.5`. Groups hold three
/// digits, or two where the last holds three (`12,34,567`).
fn grouped(text: &str) -> Option<(String, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut used = digits(text);
    let mut number = text[..used].to_owned();
    if (1..=3).contains(&used) {
        let separator = text[used..].chars().next().filter(|it| [',', '\'', '\u{2019}', ' '].contains(it));
        if let Some(separator) = separator {
            let mut end = used;
            let mut groups = Vec::new();
            while let Some(rest) = text[end..].strip_prefix(separator) {
                let length = digits(rest);
                if !(length == 3 || (length == 2 && separator == ',')) {
                    break;
                }
                groups.push(&rest[..length]);
                end += separator.len_utf8() + length;
            }
            while groups.last().is_some_and(|it| it.len() != 3) {
                let dropped = groups.pop().map_or(0, str::len);
                end -= separator.len_utf8() + dropped;
            }
            number.extend(groups);
            used = end;
        }
    }
    if let Some(rest) = text[used..].strip_prefix('.') {
        let length = digits(rest);
        if length > 0 {
            number.push('.');
            number.push_str(&rest[..length]);
            used += 1 + length;
        }
    }
    number.contains(|it: char| it.is_ascii_digit()).then_some((number, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<f64> {
        all(text, Decimal::Point).into_iter().map(|it| it.number.value()).collect()
    }

    #[test]
    fn numbers_are_found_in_running_text() {
        assert_eq!(values("From 1,000 to 2,500.75, minus -3."), [1000.0, 2500.75, -3.0]);
        assert_eq!(values("12,34,567 and 1,23"), [1_234_567.0, 1.0, 23.0]);
        assert_eq!(values("5-3=2, x2 = 4, 3/4 of 1 1/2 = 9/8"), [5.0, 3.0, 2.0, 4.0, 0.75, 1.5, 1.125]);
        assert_eq!(values("on 3/4/2020"), [3.0, 4.0, 2020.0]);
        assert_eq!(values("6.02×10^23 and 1.6 x 10^{-19} and 2e3"), [6.02e23, 1.6e-19, 2000.0]);
        assert_eq!(values("½ cup, 2½ cups, 3.5万元"), [0.5, 2.5, 35_000.0]);
        assert_eq!(values(r"\frac{1}{3}, \frac12, 1{,}234"), [1.0 / 3.0, 0.5, 1234.0]);
        assert_eq!(values("共有三百二十一人，占百分之四十"), [321.0, 40.0]);
        assert!(values("no number, abc1").is_empty());
    }

    #[test]
    fn a_text_is_a_number_only_as_a_whole() {
        let value = |text| whole(text, Decimal::Point).map(|it| it.number.value());
        assert_eq!(value(" -$1,234.50. "), Some(-1234.5));
        assert_eq!(value("42 apples"), None);
        assert_eq!(value("$12$"), Some(12.0));
        assert_eq!(value("＋５"), Some(5.0));
        assert!(whole("50 %", Decimal::Point).unwrap().percent);
        assert_eq!(whole("1.234,5", Decimal::Comma).unwrap().number.value(), 1234.5);
    }

    #[test]
    fn fractions_are_exact_and_overflow_is_a_float() {
        let third = Number::ratio(1, 3).unwrap();
        let whole = third.plus(third).unwrap().plus(third).unwrap();
        assert!(whole.close_to(Number::ratio(1, 1).unwrap(), 0.0, 0.0));
        assert!(!third.close_to(Number::decimal("0.333333333333333333", 0).unwrap(), 0.0, 0.0));
        assert_eq!(Number::decimal("1", 60).unwrap().value(), 1e60);
        assert_eq!(third.over(Number::ratio(0, 1).unwrap()), None);
        assert_eq!(Number::ratio(1, 0), None);
        assert_eq!(third.negated().times(Number::ratio(-3, 1).unwrap()).unwrap().value(), 1.0);
    }
}
