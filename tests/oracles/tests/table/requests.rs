//! Requests like those of the store, and their neighbours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::pair::{INDEXES, TABLE};

const PKS: [&str; 4] = ["job#1", "job#2", "test", "ключ#1"];
const SKS: [&str; 5] = ["job", "payload", "delivery#a", "delivery#b", "delivery#é"];
const SOURCES: [&str; 3] = ["product", "produkt-ä", "🎬"];

const SPELLINGS: [&str; 14] =
    ["0", "1", "1.0", "01", "1e0", "2", "2.5", "10", "-1", "-2.5", "-10", "1e1", "100", "0.5"];

const INTEGERS: [&str; 8] = ["0", "1", "1.0", "01", "1e0", "2", "1e1", "-1"];

/// Conditions of the store, and others.
const CONDITIONS: [&str; 34] = [
    "attribute_not_exists(pk)",
    "attribute_not_exists(pk)",
    "v = :v",
    "v = :v",
    "attribute_not_exists(pk) OR v < :v",
    "attribute_exists(extra)",
    "#state = :state",
    "state = :state",
    "NOT v = :v",
    "NOT (v = :v OR #state = :state) AND attribute_exists(v)",
    "v <> :v AND (v < :w OR v >= :v)",
    "created_at > :v",
    "v BETWEEN :v AND :w",
    "v BETWEEN :v AND :any",
    "v IN (:w, :any, :v)",
    "extra = :any",
    "extra <> :any",
    "extra < :any",
    "extra <= :any OR extra > :any",
    "begins_with(sk, :sk)",
    "begins_with(extra, :any)",
    "contains(extra, :any)",
    "contains(sk, :sk)",
    "contains(extra, extra)",
    "size(extra) < :v",
    "size(sk) >= :w",
    "v = v",
    "((v = :v))",
    "(v = :v)",
    "((v = :v) AND (v = :w))",
    "v = 1",
    "v = :v :w",
    "#undefined = :v",
    "v = :undefined",
];

/// The first conditions compare only what may be compared. In a transaction the other engine does
/// not look at the operands of the rest before it has an item.
const SOUND_CONDITIONS: usize = 12;

/// Filters of the store, and others.
const FILTERS: [&str; 9] = [
    "#state = :state",
    "v = :v",
    "v >= :v AND #state = :state",
    "extra <> :any",
    "attribute_exists(extra)",
    "size(extra) > :v",
    "state = :state",
    "begins_with(sk, :sk) AND #state = :state",
    "sk = :sk AND #state = :state",
];

const KEY_CONDITIONS: [&str; 21] = [
    "#hash = :hash",
    "#hash = :hash",
    "#hash = :hash AND #range >= :low",
    "#hash = :hash AND #range <= :low",
    "#hash = :hash AND #range > :low",
    "#hash = :hash AND #range < :low",
    "#hash = :hash AND #range = :low",
    "#hash = :hash AND #range BETWEEN :low AND :high",
    "#range BETWEEN :low AND :high AND #hash = :hash",
    "(#hash = :hash) AND (#range <= :low)",
    ":hash = #hash AND :low <= #range",
    "#hash = :hash AND begins_with(#range, :low)",
    "#hash = :hash AND #range > :low AND #range < :high",
    "#hash = :hash AND #range <> :low",
    "#hash = :hash OR #range = :low",
    "#hash >= :hash",
    "#range = :low",
    "NOT #hash = :hash",
    "#hash = :hash AND v = :low",
    "#hash = :any AND #range = :low",
    "#hash = :hash AND #range = :any",
];

const UPDATES: [&str; 15] = [
    "SET v = :v",
    "SET v = v + :v",
    "SET v = if_not_exists(v, :v) + :w, #state = :state",
    "SET extra = :any REMOVE #state",
    "REMOVE extra, shard_of_none",
    "ADD v :v",
    "ADD #state :v",
    "ADD absent_one :v",
    "SET created_at = :any",
    "SET since = :v REMOVE due_at",
    "SET v = :v, v = :w",
    "SET v = :v SET extra = :any",
    "SET pk = :sk",
    "SET v = absent_one",
    "SET v = :v - :w",
];

pub(crate) fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[0-9]{1,4}",
        2 => "-?[0-9]{1,3}\\.[0-9]{1,4}",
        2 => "[+-]?0{0,3}[1-9][0-9]{0,6}0{0,3}",
        1 => "-?[1-9][0-9]{15,37}",
        1 => "-?0\\.0{0,9}[1-9][0-9]{0,27}",
        2 => "-?[1-9]\\.?[0-9]{0,9}[eE][+-]?[0-9]{1,2}",
        1 => "-?[0-9][eE]-?1[23][0-9]",
    ]
}

/// Numbers that are a key: few values, in many spellings.
fn key_number() -> impl Strategy<Value = Value> {
    select(&SPELLINGS).prop_map(|text| json!({"N": text}))
}

/// What updates calculate with: our table refuses to calculate with fractions.
fn integer() -> impl Strategy<Value = Value> {
    select(&INTEGERS).prop_map(|text| json!({"N": text}))
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => "\\PC{0,12}".prop_map(|text| json!({"S": text})),
        1 => select(&SKS).prop_map(|text| json!({"S": text})),
        3 => number().prop_map(|number| json!({"N": number})),
        2 => key_number(),
        2 => prop::collection::vec(any::<u8>(), 0..9)
            .prop_map(|bytes| json!({"B": STANDARD.encode(bytes)})),
        1 => any::<bool>().prop_map(|value| json!({"BOOL": value})),
        1 => Just(json!({"NULL": true})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|list| json!({"L": list})),
            prop::collection::btree_map("[a-zé]{1,4}", inner, 0..3)
                .prop_map(|map| json!({"M": map})),
        ]
    })
}

fn some_text(choices: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(choices).prop_map(|text| json!({"S": text}))
}

fn rarely(strange: Value) -> impl Strategy<Value = Option<Value>> {
    prop::option::weighted(0.02, Just(strange))
}

fn key() -> impl Strategy<Value = Value> {
    (some_text(&PKS), some_text(&SKS)).prop_map(|(pk, sk)| json!({"pk": pk, "sk": sk}))
}

/// A key, or what is none.
fn perhaps_key() -> impl Strategy<Value = Value> {
    prop_oneof![
        30 => key(),
        1 => Just(json!({"pk": {"S": "job#1"}})),
        1 => Just(json!({"pk": {"S": ""}, "sk": {"S": "job"}})),
        1 => Just(json!({"pk": {"N": "1"}, "sk": {"S": "job"}})),
        1 => Just(json!({"pk": {"S": "job#1"}, "sk": {"S": "job"}, "v": {"N": "1"}})),
        1 => Just(json!({"pk": {"S": "job#1"}, "other": {"S": "job"}})),
        1 => (2046..2051_usize, 1022..1027_usize).prop_map(|(pk, sk)| {
            json!({"pk": {"S": "p".repeat(pk)}, "sk": {"S": "s".repeat(sk)}})
        }),
    ]
}

/// Text as long as an item near a border of units may have.
fn padding() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..20_usize, 2 => 850..1030_usize, 1 => 1900..2060_usize, 1 => 3900..4110_usize]
}

pub(crate) fn item() -> impl Strategy<Value = Value> {
    let sometimes = |strategy: BoxedStrategy<Value>| prop::option::weighted(0.6, strategy);
    let indexed = (
        sometimes(key_number().boxed()),
        sometimes(key_number().boxed()),
        sometimes(key_number().boxed()),
        sometimes(key_number().boxed()),
        sometimes(some_text(&SOURCES).boxed()),
        sometimes(key_number().boxed()),
        sometimes(key_number().boxed()),
    );
    let others = (
        sometimes(integer().boxed()),
        sometimes(select(&["queued", "done"]).prop_map(|state| json!({"S": state})).boxed()),
        sometimes(any_value().boxed()),
        padding(),
    );
    let strange = (
        rarely(json!({"S": "not a number"})),
        rarely(json!({"S": ""})),
        rarely(json!({"N": "1e126"})),
        rarely(json!({"S": "x".repeat(409_600)})),
        prop::option::weighted(0.02, 30..34_usize),
    );
    (perhaps_key(), indexed, others, strange).prop_map(|(mut item, indexed, others, strange)| {
        let (shard, since, due_shard, due_at, source, created_at, undelivered) = indexed;
        let (v, state, extra, padding) = others;
        let (wrong_since, empty_source, wrong_number, huge, depth) = strange;
        let deep = depth
            .map(|depth| (0..depth).fold(json!({"S": "x"}), |inner, _| json!({"M": {"m": inner}})));
        let attributes = [
            ("shard", shard),
            ("since", wrong_since.or(since)),
            ("due_shard", due_shard),
            ("due_at", due_at),
            ("source", empty_source.or(source)),
            ("created_at", created_at),
            ("undelivered", undelivered),
            ("v", wrong_number.or(v)),
            ("state", state),
            ("extra", deep.or(extra)),
            (
                "padding",
                huge.or_else(|| (padding > 0).then(|| json!({"S": "é".repeat(padding / 2)}))),
            ),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                item[name] = value;
            }
        }
        item
    })
}

/// Values of the placeholders that expressions here name.
fn values() -> impl Strategy<Value = Map<String, Value>> {
    let state = select(&["queued", "done"]).prop_map(|state| json!({"S": state}));
    (integer(), integer(), any_value(), state, some_text(&SKS)).prop_map(
        |(v, w, any, state, sk)| {
            let values = [(":v", v), (":w", w), (":any", any), (":state", state), (":sk", sk)];
            values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        },
    )
}

/// Defines no placeholder that is not used.
const NO_MORE: u8 = u8::MAX;

/// Defines the placeholders that the request's expressions name, and rarely one more.
fn define(request: &mut Value, values: Map<String, Value>, names: &[(&str, &str)], one_more: u8) {
    let expressions: Vec<&str> = request
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.ends_with("Expression"))
        .filter_map(|(_, text)| text.as_str())
        .collect();
    let expressions = expressions.join(" ");
    let words: Vec<&str> = expressions
        .split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, ':' | '#' | '_'))
        .collect();
    let mut values = values;
    values.retain(|name, _| words.contains(&name.as_str()));
    let mut names: Map<String, Value> = names
        .iter()
        .filter(|(name, _)| words.contains(name))
        .map(|(name, of)| ((*name).to_owned(), json!(of)))
        .collect();
    match one_more {
        0 => drop(values.insert(":unused".into(), json!({"N": "1"}))),
        1 => drop(names.insert("#unused".into(), json!("unused"))),
        _ => {}
    }
    if !values.is_empty() || one_more == 2 {
        request["ExpressionAttributeValues"] = values.into();
    }
    if !names.is_empty() {
        request["ExpressionAttributeNames"] = names.into();
    }
}

const NAMES: [(&str, &str); 1] = [("#state", "state")];

fn capacity() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![
        4 => Just(Some("INDEXES")), 2 => Just(Some("TOTAL")), 2 => Just(None),
        1 => Just(Some("NONE")),
    ]
}

fn with(mut request: Value, members: &[(&str, Option<Value>)]) -> Value {
    request["TableName"] = json!(TABLE);
    for (name, value) in members {
        if let Some(value) = value {
            request[*name] = value.clone();
        }
    }
    request
}

/// An operation and its request.
pub(crate) type Call = (&'static str, Value);

pub(crate) fn put() -> impl Strategy<Value = Call> {
    let condition = prop::option::of(select(&CONDITIONS));
    let shown = prop::option::weighted(
        0.7,
        prop_oneof![20 => Just("ALL_OLD"), 2 => Just("NONE"), 1 => Just("ALL_NEW")],
    );
    (item(), condition, shown, values(), capacity(), 0..60_u8).prop_map(
        |(item, condition, shown, values, capacity, one_more)| {
            let mut request = with(
                json!({"Item": item}),
                &[
                    ("ConditionExpression", condition.map(Value::from)),
                    ("ReturnValuesOnConditionCheckFailure", shown.map(Value::from)),
                    ("ReturnConsumedCapacity", capacity.map(Value::from)),
                ],
            );
            define(&mut request, values, &NAMES, one_more);
            ("PutItem", request)
        },
    )
}

fn get() -> impl Strategy<Value = Call> {
    (perhaps_key(), any::<bool>(), capacity()).prop_map(|(key, consistent, capacity)| {
        let members = [
            ("ConsistentRead", Some(json!(consistent))),
            ("ReturnConsumedCapacity", capacity.map(Value::from)),
        ];
        ("GetItem", with(json!({"Key": key}), &members))
    })
}

fn batch_get() -> impl Strategy<Value = Call> {
    let keys = prop_oneof![
        12 => prop::collection::vec(key(), 1..6),
        2 => prop::collection::vec(perhaps_key(), 0..3),
        1 => (99..102_usize).prop_map(|count| {
            (0..count).map(|n| json!({"pk": {"S": "many"}, "sk": {"S": n.to_string()}})).collect()
        }),
    ];
    (keys, any::<bool>(), capacity()).prop_map(|(keys, consistent, capacity)| {
        let wanted = json!({"Keys": keys, "ConsistentRead": consistent});
        let mut request = json!({"RequestItems": {TABLE: wanted}});
        if let Some(capacity) = capacity {
            request["ReturnConsumedCapacity"] = json!(capacity);
        }
        ("BatchGetItem", request)
    })
}

fn delete() -> impl Strategy<Value = Call> {
    let condition = prop::option::of(select(&CONDITIONS));
    (perhaps_key(), condition, values(), capacity(), 0..60_u8).prop_map(
        |(key, condition, values, capacity, one_more)| {
            let mut request = with(
                json!({"Key": key}),
                &[
                    ("ConditionExpression", condition.map(Value::from)),
                    ("ReturnValuesOnConditionCheckFailure", Some("ALL_OLD".into())),
                    ("ReturnConsumedCapacity", capacity.map(Value::from)),
                ],
            );
            define(&mut request, values, &NAMES, one_more);
            ("DeleteItem", request)
        },
    )
}

fn update() -> impl Strategy<Value = Call> {
    let condition = prop::option::weighted(0.3, select(&CONDITIONS));
    let returned = prop::option::of(select(&["ALL_NEW", "ALL_OLD", "NONE"]));
    (perhaps_key(), select(&UPDATES), condition, returned, values(), capacity(), 0..60_u8).prop_map(
        |(key, update, condition, returned, values, capacity, one_more)| {
            let mut request = with(
                json!({"Key": key, "UpdateExpression": update}),
                &[
                    ("ConditionExpression", condition.map(Value::from)),
                    ("ReturnValues", returned.map(Value::from)),
                    ("ReturnConsumedCapacity", capacity.map(Value::from)),
                ],
            );
            define(&mut request, values, &NAMES, one_more);
            ("UpdateItem", request)
        },
    )
}

/// One action of a transaction: what the store makes transactions of.
fn action() -> impl Strategy<Value = Value> {
    let shown = prop::option::of(select(&["ALL_OLD", "NONE"]));
    let condition = prop::option::of(select(&CONDITIONS[..SOUND_CONDITIONS]));
    let subject = prop_oneof![
        3 => item().prop_map(|item| ("Put", json!({"Item": item}))),
        2 => perhaps_key().prop_map(|key| ("Delete", json!({"Key": key}))),
        2 => perhaps_key().prop_map(|key| ("ConditionCheck", json!({"Key": key}))),
    ];
    (subject, condition, shown, values()).prop_map(|((kind, body), condition, shown, values)| {
        let mut body = with(
            body,
            &[
                ("ConditionExpression", condition.map(Value::from)),
                ("ReturnValuesOnConditionCheckFailure", shown.map(Value::from)),
            ],
        );
        define(&mut body, values, &NAMES, NO_MORE);
        json!({kind: body})
    })
}

pub(crate) fn transaction() -> impl Strategy<Value = Call> {
    let actions = prop_oneof![30 => prop::collection::vec(action(), 1..4), 1 => Just(Vec::new())];
    (actions, capacity()).prop_map(|(actions, capacity)| {
        let mut request = json!({"TransactItems": actions});
        if let Some(capacity) = capacity {
            request["ReturnConsumedCapacity"] = json!(capacity);
        }
        ("TransactWriteItems", request)
    })
}

/// One call on a few items.
pub(crate) fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => put(), 3 => get(), 2 => batch_get(), 1 => delete(), 2 => update(), 4 => query(),
        4 => transaction(),
    ]
}

/// A query of the table or of an index.
pub(crate) fn query() -> impl Strategy<Value = Call> {
    let table = (Just(None), some_text(&PKS), some_text(&SKS), some_text(&SKS)).boxed();
    let by_number = |index: usize| {
        (Just(Some(INDEXES[index])), key_number(), key_number(), key_number()).boxed()
    };
    let by_source = (Just(Some(INDEXES[2])), some_text(&SOURCES), key_number(), key_number());
    let of = prop_oneof![
        4 => table, 1 => by_number(0), 1 => by_number(1), 2 => by_source.boxed(), 1 => by_number(3),
    ];
    let filter = prop::option::weighted(0.3, select(&FILTERS));
    let limit = prop::option::of(prop_oneof![10 => 1..5_u32, 1 => Just(0)]);
    let flags = (
        prop::option::of(any::<bool>()),
        prop::option::weighted(0.2, any::<bool>()),
        prop::option::weighted(
            0.1,
            select(&["COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "NOTHING"]),
        ),
    );
    let wanted = (of, select(&KEY_CONDITIONS), filter, limit);
    (wanted, flags, values(), capacity(), 0..60_u8).prop_map(
        |((of, condition, filter, limit), flags, mut values, capacity, one_more)| {
            let (index, hash, low, high) = of;
            let (forward, consistent, select) = flags;
            let [(hash_name, _), (range_name, _)] =
                index.map_or([("pk", "S"), ("sk", "S")], |(_, keys)| keys);
            for (name, value) in [(":hash", hash), (":low", low), (":high", high)] {
                values.insert(name.to_owned(), value);
            }
            let mut request = with(
                json!({"KeyConditionExpression": condition}),
                &[
                    ("IndexName", index.map(|(name, _)| name.into())),
                    ("FilterExpression", filter.map(Value::from)),
                    ("Limit", limit.map(Value::from)),
                    ("ScanIndexForward", forward.map(Value::from)),
                    ("ConsistentRead", consistent.map(Value::from)),
                    ("Select", select.map(Value::from)),
                    ("ReturnConsumedCapacity", capacity.map(Value::from)),
                ],
            );
            let names = [NAMES[0], ("#hash", hash_name), ("#range", range_name)];
            define(&mut request, values, &names, one_more);
            ("Query", request)
        },
    )
}

/// A scan of the table.
pub(crate) fn scan() -> impl Strategy<Value = Call> {
    let filter = prop::option::of(select(&FILTERS));
    let limit = prop::option::of(prop_oneof![10 => 1..9_u32, 1 => Just(0)]);
    (filter, limit, any::<bool>(), values(), capacity(), 0..60_u8).prop_map(
        |(filter, limit, consistent, values, capacity, one_more)| {
            let mut request = with(
                json!({"ConsistentRead": consistent}),
                &[
                    ("FilterExpression", filter.map(Value::from)),
                    ("Limit", limit.map(Value::from)),
                    ("ReturnConsumedCapacity", capacity.map(Value::from)),
                ],
            );
            define(&mut request, values, &NAMES, one_more);
            ("Scan", request)
        },
    )
}

/// What may stand in a request as its cursor.
pub(crate) fn cursor() -> impl Strategy<Value = Value> {
    let of_index = (key(), key_number(), key_number()).prop_map(|(mut key, hash, range)| {
        key["shard"] = hash;
        key["since"] = range;
        key
    });
    prop_oneof![4 => key(), 2 => perhaps_key(), 3 => of_index, 1 => Just(json!({}))]
}
