//! Chinese and Japanese numerals: `三百二十一`, `二〇二四`, `一万二千`, `零点五`, `三分之二`, formal ones, and units after
//! digits (`3.5万`).

use crate::number::Number;

fn digit(character: char) -> Option<i128> {
    Some(match character {
        '零' | '〇' => 0,
        '一' | '壹' | '壱' => 1,
        '二' | '两' | '兩' | '贰' | '貳' | '弐' => 2,
        '三' | '叁' | '參' | '参' => 3,
        '四' | '肆' => 4,
        '五' | '伍' => 5,
        '六' | '陆' | '陸' => 6,
        '七' | '柒' => 7,
        '八' | '捌' => 8,
        '九' | '玖' => 9,
        _ => return None,
    })
}

fn small_unit(character: char) -> Option<i128> {
    Some(match character {
        '十' | '拾' => 10,
        '百' | '佰' => 100,
        '千' | '仟' => 1000,
        _ => return None,
    })
}

fn big_unit(character: char) -> Option<i128> {
    Some(match character {
        '万' | '萬' => 10_000,
        '亿' | '億' => 100_000_000,
        '兆' => 1_000_000_000_000,
        _ => return None,
    })
}

/// Whether a numeral may begin with it.
pub(crate) fn begins(character: char) -> bool {
    digit(character).is_some() || small_unit(character) == Some(10)
}

/// Whether it stands in numerals.
pub(crate) fn is_part(character: char) -> bool {
    digit(character).is_some() || small_unit(character).is_some() || big_unit(character).is_some()
}

/// A unit written after digits, and its bytes.
pub(crate) fn large_unit(text: &str) -> Option<(Number, usize)> {
    let first = text.chars().next()?;
    let unit = small_unit(first).or_else(|| big_unit(first))?;
    Some((Number::ratio(unit, 1)?, first.len_utf8()))
}

/// The number that `text` begins with, and its bytes. A single `一` or a unit alone (`千`) is no number: such
/// characters stand in ordinary words; `十` is ten.
pub fn at(text: &str) -> Option<(Number, usize)> {
    let (first, used) = decimal(text)?;
    if let Some(rest) = text[used..].strip_prefix("分之")
        && let Some((above, more)) = decimal(rest)
    {
        return Some((above.over(first)?, used + "分之".len() + more));
    }
    Some((first, used))
}

fn decimal(text: &str) -> Option<(Number, usize)> {
    let (whole, mut used) = integer(text)?;
    let mut number = Number::ratio(whole, 1)?;
    if let Some(rest) = text[used..].strip_prefix(['点', '點']) {
        let digits: String = rest
            .chars()
            .map_while(digit)
            .map(|it| char::from(b'0' + u8::try_from(it).unwrap_or(0)))
            .collect();
        if !digits.is_empty() {
            let bytes: usize = rest.chars().take(digits.len()).map(char::len_utf8).sum();
            number = number.plus(Number::decimal(&format!("0.{digits}"), 0)?)?;
            used += "点".len() + bytes;
            while let Some((unit, more)) = big(&text[used..]) {
                number = number.times(Number::ratio(unit, 1)?)?;
                used += more;
            }
        }
    }
    Some((number, used))
}

fn big(text: &str) -> Option<(i128, usize)> {
    let first = text.chars().next()?;
    Some((big_unit(first)?, first.len_utf8()))
}

/// Characters of a numeral at most: a longer run of numerals is none.
const LONGEST: usize = 64;

fn integer(text: &str) -> Option<(i128, usize)> {
    let numeral: String = text.chars().take(LONGEST).take_while(|it| is_part(*it)).collect();
    let first = numeral.chars().next()?;
    if !begins(first) {
        return None;
    }
    let digits: Option<Vec<i128>> = numeral.chars().map(digit).collect();
    let value = match digits {
        // `二〇二四` is read digit by digit.
        Some(digits) => digits.into_iter().try_fold(0i128, |sum, it| sum.checked_mul(10)?.checked_add(it))?,
        None => with_units(&numeral)?,
    };
    Some((value, numeral.len()))
}

fn with_units(numeral: &str) -> Option<i128> {
    // `total` is what a unit of ten thousand closed, `section` what stands before the next such unit.
    let (mut total, mut section, mut last) = (0i128, 0i128, None::<i128>);
    let mut closing = 1i128;
    for character in numeral.chars() {
        if let Some(value) = digit(character) {
            // Two digits side by side, zeros aside, are no numeral: `三五百`.
            if last.is_some_and(|it| it != 0) {
                return None;
            }
            last = Some(value);
            if value == 0 {
                closing = 1;
            }
        } else if let Some(unit) = small_unit(character) {
            section = section.checked_add(last.filter(|it| *it != 0).unwrap_or(1).checked_mul(unit)?)?;
            (last, closing) = (None, unit);
        } else if let Some(unit) = big_unit(character) {
            let before = section.checked_add(last.take().unwrap_or(0))?;
            // `一万亿` multiplies what is there.
            total = match (before, total) {
                (0, all) => all.checked_mul(unit)?,
                (before, all) if all != 0 && all % unit != 0 => all.checked_add(before)?.checked_mul(unit)?,
                (before, all) => all.checked_add(before.checked_mul(unit)?)?,
            };
            (section, closing) = (0, unit);
        }
    }
    // A last digit without a unit counts in tenths of the last one: `三百五` is 350, `一万二` 12000.
    let tail = last.unwrap_or(0) * if closing >= 100 { closing / 10 } else { 1 };
    total.checked_add(section)?.checked_add(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        at(text).map(|it| it.0.value())
    }

    #[test]
    fn numerals_are_read_as_spoken() {
        let known = [
            ("三百二十一", 321.0),
            ("十", 10.0),
            ("十五", 15.0),
            ("二十", 20.0),
            ("一百零五", 105.0),
            ("三百五", 350.0),
            ("一万二", 12_000.0),
            ("一万零二", 10_002.0),
            ("一万二千三百四十五", 12_345.0),
            ("两亿三千万", 230_000_000.0),
            ("一万亿", 1e12),
            ("一千二百万亿", 1.2e15),
            ("二〇二四", 2024.0),
            ("零点五", 0.5),
            ("三点七五", 3.75),
            ("一点五亿", 1.5e8),
            ("三分之二", 2.0 / 3.0),
            ("壹佰贰拾叁", 123.0),
        ];
        for (text, expected) in known {
            assert_eq!(value(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn words_that_hold_units_are_no_numerals() {
        for text in ["千万别去", "万一", "百", "三五百", "abc"] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
