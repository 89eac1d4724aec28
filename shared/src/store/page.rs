//! Pages of a listing, and the cursors between them.

use std::collections::HashMap;
use std::error::Error;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Item, StoreError, corrupt, unavailable};

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// An opaque cursor to the next page, if there is one.
    pub next: Option<String>,
}

/// A cursor as text, which callers hand back. It holds nothing but keys.
pub(super) fn encode_cursor(key: &Item) -> Result<String, StoreError> {
    let key: Value =
        serde_dynamo::from_item(key.clone()).map_err(|error| corrupt("page", error))?;
    Ok(URL_SAFE_NO_PAD.encode(key.to_string()))
}

pub(super) fn decode_cursor(text: &str) -> Result<Item, StoreError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| corrupt("page", error))?;
    let key: Value = serde_json::from_slice(&bytes).map_err(|error| corrupt("page", error))?;
    serde_dynamo::to_item(key).map_err(|error| corrupt("page", error))
}

/// Truncates the items of a scan to the room that is left on a page. Returns the key to continue
/// after, if items were cut off.
pub(super) fn cut(found: &mut Vec<Item>, room: usize) -> Option<Item> {
    if found.len() <= room {
        return None;
    }
    found.truncate(room);
    found.last().map(key_of)
}

/// The key of an item in the table.
pub(super) fn key_of(item: &Item) -> Item {
    let key = ["pk", "sk"].into_iter().filter_map(|name| item.get_key_value(name));
    HashMap::from_iter(key.map(|(name, value)| (name.clone(), value.clone())))
}

/// Why the page at `start` cannot be read. Only `start` comes from the caller, so when DynamoDB
/// calls the request invalid, the cursor is: it is of another listing, or made up.
pub(super) fn unreadable(
    doing: &'static str,
    start: Option<&str>,
    error: impl ProvideErrorMetadata + Error + Send + Sync + 'static,
) -> StoreError {
    match (error.code(), start) {
        (Some("ValidationException"), Some(_)) => corrupt("page", error),
        (Some(_) | None, _) => unavailable(doing, error),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::query::QueryError;
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;

    fn item(pk: &str) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        ["pk", "sk", "state"].into_iter().map(|name| (name.to_owned(), text(pk))).collect()
    }

    #[test]
    fn cut_page_continues_after_last_item() {
        let mut found: Vec<Item> = ["a", "b", "c"].map(item).into();
        assert_eq!(cut(&mut found, 3), None);
        let next = cut(&mut found, 2).unwrap();
        assert_eq!(found, [item("a"), item("b")]);
        let mut keys = item("b");
        keys.remove("state");
        assert_eq!(next, keys);
        assert_eq!(decode_cursor(&encode_cursor(&next).unwrap()).unwrap(), next);
    }

    #[test]
    fn wrong_cursor_is_not_an_outage() {
        assert!(matches!(decode_cursor("%%"), Err(StoreError::Corrupt { kind: "page", .. })));
        let error = |code| QueryError::generic(ErrorMetadata::builder().code(code).build());
        let wrong = unreadable("list", Some("x"), error("ValidationException"));
        assert!(matches!(wrong, StoreError::Corrupt { kind: "page", .. }));
        for (start, code) in [(Some("x"), "InternalServerError"), (None, "ValidationException")] {
            let outage = unreadable("list", start, error(code));
            assert!(matches!(outage, StoreError::Unavailable { .. }), "{code}");
        }
    }
}
