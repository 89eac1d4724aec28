//! DynamoDB's numbers: up to 38 decimal digits, exact, one spelling each.
//!
//! "Naming rules and data types" and "DynamoDB item sizes and formats" of the developer guide.

use std::cmp::Ordering;
use std::fmt;

/// The most significant digits.
const MAX_DIGITS: usize = 38;
/// The exponents of the largest and of the smallest magnitude, of a number written as `0.d × 10ⁿ`.
const EXPONENTS: std::ops::RangeInclusive<i64> = -129..=126;

/// A number, written as `0.d × 10ⁿ` with a first and a last digit that are not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Number {
    /// Reads a number in any of its spellings.
    ///
    /// # Errors
    /// When it is none, has too many digits, or its magnitude is out of range.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let none = || format!("{text} is not a number");
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (coefficient, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((coefficient, exponent)) => (coefficient, exponent.parse().map_err(|_| none())?),
            None => (unsigned, 0_i64),
        };
        let (whole, fraction) = coefficient.split_once('.').unwrap_or((coefficient, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(none());
        }
        let places = |digits: &[u8]| i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let end = exponent.saturating_sub(places(fraction.as_bytes()));
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        // Zero is held to the same range, as if its last digit were a 1.
        let exponent = end.saturating_add(places(&digits).max(1));
        let significant =
            digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        digits.truncate(significant);
        if digits.len() > MAX_DIGITS || !EXPONENTS.contains(&exponent) {
            return Err(format!("{text} has too many digits or is out of range"));
        }
        let is_zero = digits.is_empty();
        let is_negative = text.starts_with('-') && !is_zero;
        Ok(Self { is_negative, digits, exponent: if is_zero { 0 } else { exponent } })
    }

    /// What it counts in an item's size: a byte for two digits on either side of the point, one
    /// more, and one for a minus sign.
    pub(crate) fn size(&self) -> usize {
        let whole = usize::try_from(self.exponent).unwrap_or(0).min(self.digits.len());
        let fraction = self.digits.len() - whole;
        whole.div_ceil(2) + fraction.div_ceil(2) + 1 + usize::from(self.is_negative)
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitudes =
            || self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        self.sign().cmp(&other.sign()).then_with(|| match self.is_negative {
            true => magnitudes().reverse(),
            false => magnitudes(),
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Without an exponent and without zeros that say nothing, as DynamoDB answers.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.is_negative {
            f.write_str("-")?;
        }
        let before = usize::try_from(self.exponent).unwrap_or(0);
        if before == 0 {
            f.write_str("0.")?;
            (self.exponent..0).try_for_each(|_| f.write_str("0"))?;
        }
        for (place, digit) in self.digits.iter().enumerate() {
            if place == before && before > 0 {
                f.write_str(".")?;
            }
            write!(f, "{}", char::from(*digit))?;
        }
        (self.digits.len()..before).try_for_each(|_| f.write_str("0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn numbers_have_one_spelling() {
        for (text, spelling) in [
            ("007", "7"),
            ("+1.50", "1.5"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("12.5E-4", "0.00125"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("1200", "1200"),
        ] {
            assert_eq!(number(text).to_string(), spelling, "{text}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in ["", "-", ".", "1e", "1.2.3", " 1", "0x1", "NaN", "1e126", "1e-131", "0e126"] {
            assert!(Number::parse(text).is_err(), "{text}");
        }
        assert!(Number::parse(&"9".repeat(39)).is_err());
        assert_eq!(number(&"9".repeat(38)).size(), 20);
    }

    #[test]
    fn numbers_are_ordered_by_value() {
        let ordered = ["-12", "-1.5", "-1e-9", "0", "1e-9", "0.5", "1", "9.99", "10", "1e30"];
        let mut sorted = ordered.map(number);
        sorted.reverse();
        sorted.sort();
        assert_eq!(sorted, ordered.map(number));
    }

    #[test]
    fn number_sizes_are_those_measured() {
        let sizes =
            ["0", "7", "42", "-42", "100", "123", "1.5", "0.25"].map(|text| number(text).size());
        assert_eq!(sizes, [1, 2, 2, 3, 2, 3, 3, 2]);
    }
}
