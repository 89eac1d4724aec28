//! How large items are and what they cost, as DynamoDB counts.
//!
//! Sizes: "DynamoDB item sizes and formats" of the developer guide. Units: 1 KiB for a
//! write, 4 KiB for a read, half of it when eventual consistency is enough.

use serde_json::Value;

use super::items::Item;
use super::value;

const WRITE_UNIT: usize = 1024;
const READ_UNIT: usize = 4096;
/// What DynamoDB counts for a list or a map itself.
const NESTED: usize = 3;

/// An item's size, in bytes.
pub(super) fn of_item(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + of_value(value)).sum()
}

/// A value's size, in bytes.
pub(super) fn of_value(value: &Value) -> usize {
    let Some((kind, inner)) = value.as_object().and_then(|value| value.iter().next()) else {
        return 0;
    };
    let text = inner.as_str().unwrap_or_default();
    match kind.as_str() {
        "S" => text.len(),
        "N" => value::number(value).map_or(0, |number| number.size()),
        // Base64 on the wire, bytes in the table.
        "B" => value::bytes(value).map_or(0, |bytes| bytes.len()),
        "L" => {
            let elements = inner.as_array().into_iter().flatten();
            NESTED + elements.map(|element| of_value(element) + 1).sum::<usize>()
        }
        "M" => {
            let members = inner.as_object().into_iter().flatten();
            NESTED + members.map(|(name, value)| name.len() + of_value(value) + 1).sum::<usize>()
        }
        _ => 1,
    }
}

/// Units for writing so many bytes.
pub(super) fn write_units(bytes: usize) -> f64 {
    units(bytes, WRITE_UNIT)
}

/// Units for reading so many bytes.
pub(super) fn read_units(bytes: usize, consistent: bool) -> f64 {
    units(bytes, READ_UNIT) * if consistent { 1.0 } else { 0.5 }
}

/// Whole units, at least one: an absent item costs as much as the smallest.
fn units(bytes: usize, unit: usize) -> f64 {
    let whole = bytes.div_ceil(unit).max(1);
    u32::try_from(whole).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_match_the_guide() {
        let item = json!({
            "pk": {"S": "job#1"}, "v": {"N": "1234"}, "b": {"B": "AAAA"}, "t": {"BOOL": true},
            "l": {"L": [{"S": "ab"}, {"N": "1"}]}, "m": {"M": {"k": {"S": "v"}}},
        });
        let bytes = (2 + 5) + (1 + 3) + (1 + 3) + (1 + 1) + (1 + 3 + 3 + 3) + (1 + 3 + 3);
        assert_eq!(of_item(item.as_object().unwrap()), bytes);
    }

    #[test]
    fn units_are_rounded_up() {
        assert_eq!([0, 1, 1024, 1025].map(write_units), [1.0, 1.0, 1.0, 2.0]);
        assert_eq!(read_units(4097, true), 2.0);
        assert_eq!(read_units(10, false), 0.5);
    }
}
