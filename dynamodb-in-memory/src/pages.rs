//! `Query` and `Scan`, which answer a page at a time.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::cost::Cost;
use super::expression::{Condition, Placeholders};
use super::items::{InOrder, Item, Key};
use super::key::{self, KeyAttribute, Place};
use super::throughput::{Access, Use};
use super::{Refusal, State, condition, flag, item, only, size, text, value};

/// The most that one page reads, in bytes.
const PAGE_BYTES: usize = 1024 * 1024;

/// What a page is taken from: items in their order, and by which attributes they are sorted.
struct Candidates<'a> {
    items: Box<dyn Iterator<Item = &'a Item> + 'a>,
    names: Vec<KeyAttribute>,
    /// How a place compares with those before it.
    order: Ordering,
    /// The place that the page before ended with.
    after: Option<Place>,
}

/// What was read, and what it cost in units.
struct Page {
    answer: Item,
    units: f64,
}

impl State {
    pub(super) fn query(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "IndexName",
                "KeyConditionExpression",
                "FilterExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ScanIndexForward",
                "ConsistentRead",
                "Limit",
                "ExclusiveStartKey",
                "Select",
            ],
        )?;
        let consistent = flag(request, "ConsistentRead", false);
        let mut placeholders = Placeholders::of(request)?;
        let wanted = condition(request, "KeyConditionExpression", &mut placeholders)?;
        let wanted = wanted.ok_or_else(|| "KeyConditionExpression is missing".to_owned())?;
        let filter = condition(request, "FilterExpression", &mut placeholders)?;
        placeholders.all_used()?;
        let forward = flag(request, "ScanIndexForward", true);
        let mut read_index = None;
        let partition;
        let (keys, names, after, items) = match text(request, "IndexName") {
            None => {
                let pk = wanted.of_key(key::PRIMARY)?;
                let pk = value::text(pk).unwrap_or_default();
                partition = pk.to_owned();
                let first = [pk.to_owned(), String::new()];
                let beyond = [format!("{pk}\0"), String::new()];
                let after = start_of(request, &key::PRIMARY, Some(&wanted))?;
                let of_pk = self.items.range(&first, Some(&beyond), consistent);
                (key::PRIMARY, key::PRIMARY.to_vec(), after, of_pk)
            }
            Some(_) if consistent => {
                return Err("an index cannot be read consistently".to_owned().into());
            }
            Some(name) => {
                let index = self.indexes.iter_mut().find(|index| index.name == name);
                let index = index.ok_or_else(|| format!("there is no index {name}"))?;
                partition = wanted.of_key(index.keys)?.to_string();
                read_index = Some(index.name);
                let (keys, names) = (index.keys, index.names());
                let after = start_of(request, &names, Some(&wanted))?;
                let visible = index.visible(after.as_ref().filter(|_| forward));
                (keys, names, after, Box::new(visible) as InOrder<'_>)
            }
        };
        let filtered = filter.iter().flat_map(Condition::attributes);
        if let Some(name) =
            filtered.into_iter().find(|name| keys.iter().any(|key| key.name == *name))
        {
            return Err(format!("{name} is part of the key, which no filter names").into());
        }
        match (text(request, "Select"), read_index) {
            (None | Some("COUNT"), _)
            | (Some("ALL_ATTRIBUTES"), None)
            | (Some("ALL_PROJECTED_ATTRIBUTES"), Some(_)) => {}
            (Some(other), _) => return Err(format!("{other} cannot be selected").into()),
        }
        let wanted = |item: &&Item| wanted.holds(item);
        let candidates = match forward {
            true => Candidates {
                items: Box::new(items.filter(wanted)),
                names,
                order: Ordering::Greater,
                after,
            },
            false => Candidates {
                items: Box::new(items.rev().filter(wanted)),
                names,
                order: Ordering::Less,
                after,
            },
        };
        let page = page(request, candidates, filter.as_ref())?;
        self.charge_page(request, page, read_index, Some(partition))
    }

    pub(super) fn scan(&mut self, request: &Value) -> Result<Value, Refusal> {
        only(
            request,
            &[
                "FilterExpression",
                "ExpressionAttributeNames",
                "ExpressionAttributeValues",
                "ConsistentRead",
                "Limit",
                "ExclusiveStartKey",
            ],
        )?;
        let consistent = flag(request, "ConsistentRead", false);
        let mut placeholders = Placeholders::of(request)?;
        let filter = condition(request, "FilterExpression", &mut placeholders)?;
        placeholders.all_used()?;
        let all = Candidates {
            items: self.items.range(&Key::default(), None, consistent),
            names: key::PRIMARY.to_vec(),
            order: Ordering::Greater,
            after: start_of(request, &key::PRIMARY, None)?,
        };
        let page = page(request, all, filter.as_ref())?;
        self.charge_page(request, page, None, None)
    }

    fn charge_page(
        &mut self,
        request: &Value,
        page: Page,
        index: Option<&'static str>,
        key: Option<String>,
    ) -> Result<Value, Refusal> {
        let Page { mut answer, units } = page;
        self.admit(Access::Read, &[Use { index, key, units }])?;
        self.charge_read(request, &mut answer, &Cost::read(units, index));
        Ok(Value::Object(answer))
    }
}

/// The place that a request's page begins after. It must be one that the key condition allows.
fn start_of(
    request: &Value,
    names: &[KeyAttribute],
    wanted: Option<&Condition>,
) -> Result<Option<Place>, Refusal> {
    if request.get("ExclusiveStartKey").is_none() {
        return Ok(None);
    }
    let start = item(request, "ExclusiveStartKey")?;
    let is_whole = start.len() == names.len();
    let is_wanted = wanted.is_none_or(|wanted| wanted.holds(&start));
    let place = key::place(&start, names).filter(|_| is_whole && is_wanted);
    place.map(Some).ok_or_else(|| "ExclusiveStartKey is none of this".to_owned().into())
}

/// The page of `candidates` that a request asks for. Its limits count what is read, and only
/// then the filter looks.
fn page(
    request: &Value,
    candidates: Candidates<'_>,
    filter: Option<&Condition>,
) -> Result<Page, Refusal> {
    let limit = match request.get("Limit").map(Value::as_u64) {
        None => usize::MAX,
        Some(Some(limit @ 1..)) => usize::try_from(limit).unwrap_or(usize::MAX),
        Some(_) => return Err("Limit is at least 1".to_owned().into()),
    };
    let Candidates { items, names, order, after } = candidates;
    // By its place, because the item that a page ended with may be gone by now.
    let lies_ahead = |item: &Item| {
        let place = key::place(item, &names);
        after.as_ref().is_none_or(|after| place.map(|place| place.cmp(after)) == Some(order))
    };
    let mut rest = items.skip_while(|item| !lies_ahead(item)).peekable();
    let mut read = Vec::new();
    let mut bytes = 0;
    let has_room = |item: &&Item, bytes: usize| bytes + size::of_item(item) <= PAGE_BYTES;
    while read.len() < limit
        && let Some(item) = rest.next_if(|item| read.is_empty() || has_room(item, bytes))
    {
        bytes += size::of_item(item);
        read.push(item);
    }
    let mut answer = Map::new();
    // A page that has reached its limit does not look whether there is more.
    if (read.len() == limit || rest.peek().is_some())
        && let Some(last) = read.last()
    {
        let last = names.iter().filter_map(|key| last.get_key_value(key.name));
        let last = last.map(|(name, value)| (name.clone(), value.clone())).collect();
        answer.insert("LastEvaluatedKey".into(), Value::Object(last));
    }
    let scanned = read.len();
    read.retain(|item| filter.is_none_or(|filter| filter.holds(item)));
    let consistent = flag(request, "ConsistentRead", false);
    answer.insert("Count".into(), read.len().into());
    answer.insert("ScannedCount".into(), scanned.into());
    match text(request, "Select") {
        Some("COUNT") => {}
        Some(_) | None => {
            let items: Vec<Value> = read.into_iter().cloned().map(Value::Object).collect();
            answer.insert("Items".into(), items.into());
        }
    }
    Ok(Page { answer, units: size::read_units(bytes, consistent) })
}
