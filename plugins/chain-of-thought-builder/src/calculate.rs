//! Calculations in running text, as GSM8K writes them: `<<3*4=12>>`. They are exact: 0.1 + 0.2 is 0.3.

use text_tools::number::{self, Decimal, Number};

/// A calculation that stands in a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calculation<'a> {
    /// What is between `<<` and `>>`.
    pub text: &'a str,
}

/// Every calculation of a text.
pub fn calculations(text: &str) -> Vec<Calculation<'_>> {
    text.split("<<").skip(1).filter_map(|it| Some(Calculation { text: it.split_once(">>")?.0 })).collect()
}

/// The text without its calculations.
pub fn without(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<<") {
        let Some((_, after)) = after.split_once(">>") else { break };
        kept.push_str(before);
        rest = after;
    }
    kept.push_str(rest);
    kept
}

impl Calculation<'_> {
    /// Whether both sides of every `=` are equal, to the last digit that the right side has.
    ///
    /// # Errors
    /// What is wrong: no equation, no arithmetic, or another result.
    pub fn check(&self) -> Result<(), String> {
        let sides: Vec<&str> = self.text.split('=').collect();
        let [first, others @ ..] = sides.as_slice() else { return Err(self.wrong("is no equation")) };
        if others.is_empty() {
            return Err(self.wrong("is no equation"));
        }
        let left = evaluate(first).map_err(|reason| self.wrong(&reason))?;
        for side in others {
            let right = evaluate(side).map_err(|reason| self.wrong(&reason))?;
            if !left.close_to(right, half_of_last_digit(side), 0.0) {
                return Err(self.wrong(&format!("gives {}", left.value())));
            }
        }
        Ok(())
    }

    fn wrong(&self, reason: &str) -> String {
        format!("calculation `{}` {reason}", self.text)
    }
}

/// A result written with digits after the point may be rounded: half of its last digit. A whole number is exact.
fn half_of_last_digit(side: &str) -> f64 {
    let digits = side.trim().trim_end_matches('%').rsplit_once('.').map_or(0, |it| it.1.trim().len());
    if digits == 0 { 0.0 } else { 0.500_000_1 * 10f64.powi(-i32::try_from(digits).unwrap_or(300)) }
}

/// How deep parentheses may stand.
const DEPTH: usize = 64;

/// The value of `3*(4+5)/2`: `+ - * / ^ %`, parentheses, numbers with separators, signs and currency signs. `x` and `×`
/// multiply, `÷` and `:` divide.
///
/// # Errors
/// What is no arithmetic.
pub fn evaluate(text: &str) -> Result<Number, String> {
    let text = text_tools::half_width(text).replace('×', "*").replace(['÷', ':'], "/");
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let value = reader.sum()?;
    match reader.rest.trim() {
        "" => Ok(value),
        rest => Err(format!("is no arithmetic at `{rest}`")),
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, sign: char) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(sign) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Result<Number, String> {
        let mut value = self.product()?;
        loop {
            let next = if self.take('+') {
                value.plus(self.product()?)
            } else if self.take('-') {
                value.plus(self.product()?.negated())
            } else {
                return Ok(value);
            };
            value = next.ok_or("is too large")?;
        }
    }

    fn product(&mut self) -> Result<Number, String> {
        let mut value = self.power()?;
        loop {
            let next = if self.take('*') || self.take('x') || self.take('X') {
                value.times(self.power()?)
            } else if self.take('/') {
                value.over(self.power()?)
            } else {
                return Ok(value);
            };
            value = next.ok_or("divides by 0 or is too large")?;
        }
    }

    fn power(&mut self) -> Result<Number, String> {
        let negative = self.take('-');
        let base = self.atom()?;
        let value = if self.take('^') {
            let exponent = self.power()?.value();
            if exponent.fract() != 0.0 || !(0.0..=256.0).contains(&exponent) {
                return Err(format!("has the power {exponent}, which is no whole number up to 256"));
            }
            let one = Number::ratio(1, 1).ok_or("is too large")?;
            (0..exponent as u32).try_fold(one, |value, _| value.times(base)).ok_or("is too large")?
        } else {
            base
        };
        Ok(if negative { value.negated() } else { value })
    }

    fn atom(&mut self) -> Result<Number, String> {
        self.take('+');
        let value = if self.take('(') {
            self.depth += 1;
            if self.depth > DEPTH {
                return Err("has too many parentheses".into());
            }
            let value = self.sum()?;
            self.depth -= 1;
            if !self.take(')') {
                return Err("has a parenthesis that is not closed".into());
            }
            value
        } else {
            self.number()?
        };
        match self.take('%') {
            true => {
                value.over(Number::ratio(100, 1).ok_or("is too large")?).ok_or_else(|| "is too large".into())
            }
            false => Ok(value),
        }
    }

    fn number(&mut self) -> Result<Number, String> {
        let rest = self.rest.trim_start().trim_start_matches(['$', '€', '£', '¥', '￥']);
        let length = rest.bytes().take_while(|it| it.is_ascii_digit() || b".,".contains(it)).count();
        let digits = rest[..length].trim_end_matches(['.', ',']);
        let found = number::whole(digits, Decimal::Point);
        let value = found.ok_or_else(|| format!("is no arithmetic at `{rest}`"))?.number;
        self.rest = &rest[length..];
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        calculations(text).iter().try_for_each(|it| it.check())
    }

    #[test]
    fn right_calculations_pass() {
        for text in [
            "48/2 = <<48/2=24>>24",
            "<<0.1+0.2=0.3>>",
            "<<2*(3+4)-1=13>>",
            "<<1,000*1.05=1050>>",
            "<<10/3=3.33>>",
            "<<20%*50=10>> <<50*20%=10>>",
            "<<-3+5=2>> <<2^10=1024>> <<-2^2=-4>>",
            "<<3×4=12>> <<12÷4=3>> <<５+５=10>>",
            "<<$5*2=$10>> <<2+3=5=10/2>>",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn wrong_ones_say_what_they_give() {
        assert_eq!(check("<<3*4=13>>"), Err("calculation `3*4=13` gives 12".into()));
        assert_eq!(check("<<10/3=3>>"), Err("calculation `10/3=3` gives 3.3333333333333335".into()));
        assert!(check("<<10/3=3.34>>").is_err());
        assert!(check("<<1/0=1>>").unwrap_err().contains("divides by 0"));
        assert!(check("<<3*apples=3>>").unwrap_err().contains("no arithmetic at `apples`"));
        assert!(check("<<3*4>>").unwrap_err().contains("is no equation"));
        assert!(check(&format!("<<{}1=1>>", "(".repeat(200))).unwrap_err().contains("too many"));
    }

    #[test]
    fn calculations_can_be_left_out() {
        assert_eq!(without("So 3*4=<<3*4=12>>12 and <<open"), "So 3*4=12 and <<open");
    }
}
