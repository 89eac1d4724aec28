//! The table of the tests against dynoxide, an engine that is compared with DynamoDB itself by a
//! public conformance suite. Generated requests go to both, and their answers must be the same:
//! items, order, pages, cursors, units, types of errors. What is left out is in the README.

mod pair;
mod requests;

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};

use crate::pair::{Pair, TABLE, shortened};
use crate::requests::{call, cursor, item, number, put, query, scan};

/// The seed, unless `ORACLE_SEED` names another.
const SEED: u64 = 20_120_810;

fn check<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let seed = std::env::var("ORACLE_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    };
    match TestRunner::new(config).run(&strategy, test) {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => {
            panic!("{reason}\ninput: {input:?}\nseed: ORACLE_SEED={seed}")
        }
        Err(error @ TestError::Abort(_)) => panic!("{error}"),
    }
}

/// Follows the cursors of a listing; each page must be the same.
fn follow(pair: &Pair, operation: &str, mut request: Value) -> Result<Value, TestCaseError> {
    for _ in 0..20 {
        let page = pair.ask(operation, &request)?;
        match page.get("LastEvaluatedKey") {
            Some(last) => request["ExclusiveStartKey"] = last.clone(),
            None => return Ok(page),
        }
    }
    prop_assert!(false, "a listing without an end: {}", shortened(&request));
    Ok(Value::Null)
}

#[test]
fn table_answers_as_dynamodb() {
    let outcomes = RefCell::new(BTreeSet::new());
    check(120, vec(call(), 1..40), |calls| {
        let pair = Pair::new();
        calls.iter().try_for_each(|(operation, request)| {
            let answer = pair.ask(operation, request)?;
            let error = answer.get("error").and_then(Value::as_str).map(str::to_owned);
            outcomes.borrow_mut().insert((*operation, error));
            Ok(())
        })
    });
    let outcomes = outcomes.into_inner();
    let reads = ["BatchGetItem", "GetItem", "Query"];
    let writes = ["DeleteItem", "PutItem", "UpdateItem"];
    for operation in reads.into_iter().chain(writes).chain(["TransactWriteItems"]) {
        for error in [None, Some("ValidationException")] {
            assert!(outcomes.contains(&(operation, error.map(str::to_owned))), "{operation}");
        }
    }
    for operation in writes {
        let failed = Some("ConditionalCheckFailedException".to_owned());
        assert!(outcomes.contains(&(operation, failed)), "{operation}");
    }
    let cancelled = Some("TransactionCanceledException".to_owned());
    assert!(outcomes.contains(&("TransactWriteItems", cancelled)));
}

#[test]
fn query_pages_agree() {
    check(60, (vec(put(), 10..30), vec(query(), 20)), |(puts, queries)| {
        let pair = Pair::new();
        for (operation, request) in &puts {
            pair.ask(operation, request)?;
        }
        queries.iter().try_for_each(|(operation, request)| {
            follow(&pair, operation, request.clone()).map(drop)
        })
    });
}

#[test]
fn cursors_agree() {
    check(60, (vec(put(), 10), vec((query(), cursor()), 20)), |(puts, queries)| {
        let pair = Pair::new();
        for (operation, request) in &puts {
            pair.ask(operation, request)?;
        }
        for ((operation, mut request), cursor) in queries {
            request["ExclusiveStartKey"] = cursor;
            pair.ask(operation, &request)?;
        }
        Ok(())
    });
}

/// A scan has no order, so the pages of each are put together.
#[test]
fn scans_agree() {
    check(60, (vec(put(), 5..30), vec(scan(), 5)), |(puts, scans)| {
        let pair = Pair::new();
        for (operation, request) in &puts {
            pair.ask(operation, request)?;
        }
        for (_, request) in scans {
            compare_scans(&pair, &request)?;
        }
        Ok(())
    });
}

fn compare_scans(pair: &Pair, request: &Value) -> Result<(), TestCaseError> {
    let (mut ours, mut theirs) = pair.ask_both("Scan", request);
    let mut all: [Vec<Value>; 2] = Default::default();
    for _ in 0..100 {
        let next = [&ours, &theirs].map(|answer| answer.1.get("LastEvaluatedKey").cloned());
        for (all, answer) in all.iter_mut().zip([&mut ours.1, &mut theirs.1]) {
            all.extend(answer["Items"].as_array().into_iter().flatten().cloned());
            for of_page in ["Items", "Count", "LastEvaluatedKey"] {
                answer.as_object_mut().unwrap().remove(of_page);
            }
            if next[0].is_some() || request.get("ExclusiveStartKey").is_some() {
                answer.as_object_mut().unwrap().remove("ConsumedCapacity");
            }
        }
        if request.get("Limit").is_none() && next[0].is_some() {
            break;
        }
        prop_assert_eq!(&ours, &theirs, "of Scan {}", shortened(request));
        let [Some(our_next), Some(their_next)] = &next else {
            prop_assert_eq!(&next[0].is_some(), &next[1].is_some());
            break;
        };
        let from = |start: &Value| {
            let mut request = request.clone();
            request["ExclusiveStartKey"] = start.clone();
            request
        };
        ours = pair.ask_both("Scan", &from(our_next)).0;
        theirs = pair.ask_both("Scan", &from(their_next)).1;
    }
    for items in &mut all {
        items.sort_by_key(Value::to_string);
    }
    let [ours, theirs] = all;
    prop_assert_eq!(ours, theirs, "of Scan {}", shortened(request));
    Ok(())
}

/// At every size near a border of units.
#[test]
fn capacity_agrees() {
    let pair = Pair::new();
    let key = json!({"pk": {"S": "p"}, "sk": {"S": "s"}});
    for border in [1024_usize, 2048, 4096, 8192] {
        for bytes in border - 20..border + 5 {
            let mut item = key.clone();
            item["padding"] = json!({"S": "x".repeat(bytes - 10)});
            item["source"] = json!({"S": "x".repeat(bytes % 3 + 1)});
            item["created_at"] = json!({"N": "1"});
            let put = json!({
                "TableName": TABLE, "Item": item, "ReturnConsumedCapacity": "INDEXES",
            });
            pair.ask("PutItem", &put).unwrap();
            for consistent in [true, false] {
                let mut get = json!({"Key": key, "ConsistentRead": consistent});
                let batch = json!({
                    "RequestItems": {TABLE: {"Keys": [key], "ConsistentRead": consistent}},
                    "ReturnConsumedCapacity": "TOTAL",
                });
                get["TableName"] = json!(TABLE);
                get["ReturnConsumedCapacity"] = json!("INDEXES");
                pair.ask("GetItem", &get).unwrap();
                pair.ask("BatchGetItem", &batch).unwrap();
            }
        }
    }
}

/// In what they are read as, and in their size.
#[test]
fn numbers_agree() {
    check(150, vec(number(), 1..4), |numbers| {
        let list: Vec<Value> = numbers.iter().map(|number| json!({"N": number})).collect();
        let key = json!({"pk": {"S": "p"}, "sk": {"S": "s"}});
        let mut item = key.clone();
        item["n"] = json!({"L": list});
        let pair = Pair::new();
        compare_size(&pair, &item)?;
        pair.ask("GetItem", &json!({"TableName": TABLE, "Key": key})).map(drop)
    });
}

/// Of values of every type, nested.
#[test]
fn item_sizes_agree() {
    check(100, item(), |item| compare_size(&Pair::new(), &item));
}

/// Pads an item until it costs another unit, and one byte more and less.
fn compare_size(pair: &Pair, item: &Value) -> Result<(), TestCaseError> {
    let key = json!({"TableName": TABLE, "Key": {"pk": item["pk"], "sk": item["sk"]}});
    let units = |padding: usize| -> Result<Option<f64>, TestCaseError> {
        let mut item = item.clone();
        item["more"] = json!({"S": "x".repeat(padding)});
        // What was there counts too.
        pair.ask("DeleteItem", &key)?;
        let put = json!({
            "TableName": TABLE, "Item": item, "ReturnConsumedCapacity": "TOTAL",
        });
        Ok(pair
            .ask("PutItem", &put)?
            .pointer("/ConsumedCapacity/CapacityUnits")
            .and_then(Value::as_f64))
    };
    let Some(least) = units(0)? else { return Ok(()) };
    let (mut low, mut high) = (0_usize, 1024);
    while high - low > 1 {
        let middle = low.midpoint(high);
        match units(middle)? == Some(least) {
            true => low = middle,
            false => high = middle,
        }
    }
    units(low).and(units(high)).map(drop)
}

#[test]
fn megabyte_pages_agree() {
    check(6, vec(1_000..390_000_usize, 4..14), |sizes| {
        let pair = Pair::new();
        for (n, size) in sizes.iter().enumerate() {
            let item = json!({
                "pk": {"S": "large"}, "sk": {"S": format!("{n:03}")}, "v": {"N": n.to_string()},
                "padding": {"S": "x".repeat(*size)},
            });
            pair.ask("PutItem", &json!({"TableName": TABLE, "Item": item}))?;
        }
        for filter in [None, Some("v > :v")] {
            let mut request = json!({
                "TableName": TABLE, "ReturnConsumedCapacity": "INDEXES",
                "ExpressionAttributeValues": {":v": {"N": "2"}},
            });
            match filter {
                Some(filter) => request["FilterExpression"] = json!(filter),
                None => drop(request.as_object_mut().unwrap().remove("ExpressionAttributeValues")),
            }
            compare_scans(&pair, &request)?;
            request["KeyConditionExpression"] = json!("pk = :pk");
            request["ExpressionAttributeValues"][":pk"] = json!({"S": "large"});
            for forward in [true, false] {
                request["ScanIndexForward"] = json!(forward);
                follow(&pair, "Query", request.clone())?;
            }
        }
        Ok(())
    });
}

/// A page ends when the next item does not fit, be it by one byte.
#[test]
fn megabyte_borders_agree() {
    let overhead = "pk".len() + "large".len() + "sk".len() + "0".len() + "padding".len();
    for last in [-1_i64, 0, 1] {
        let pair = Pair::new();
        for n in 0..5 {
            let bytes = 262_144 + if n == 3 { last } else { 0 };
            let padding = "x".repeat(usize::try_from(bytes).unwrap() - overhead);
            let item = json!({
                "pk": {"S": "large"}, "sk": {"S": n.to_string()}, "padding": {"S": padding},
            });
            pair.ask("PutItem", &json!({"TableName": TABLE, "Item": item})).unwrap();
        }
        let request = json!({
            "TableName": TABLE, "ReturnConsumedCapacity": "TOTAL",
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": "large"}},
        });
        follow(&pair, "Query", request).unwrap();
    }
}

#[test]
fn largest_items_agree() {
    let pair = Pair::new();
    let overhead = "pk".len() + "p".len() + "sk".len() + "s".len() + "padding".len();
    for bytes in 409_598..409_603_usize {
        let padding = "x".repeat(bytes - overhead);
        let item = json!({"pk": {"S": "p"}, "sk": {"S": "s"}, "padding": {"S": padding}});
        let put = json!({
            "TableName": TABLE, "Item": item, "ReturnConsumedCapacity": "TOTAL",
            "ConditionExpression": "attribute_not_exists(pk)",
        });
        pair.ask("PutItem", &put).unwrap();
    }
}

/// An answer of more than 16 MB leaves keys over.
#[test]
fn unprocessed_keys_agree() {
    let pair = Pair::new();
    let key = |n: usize| json!({"pk": {"S": "large"}, "sk": {"S": n.to_string()}});
    for n in 0..45 {
        let mut item = key(n);
        item["padding"] = json!({"S": "x".repeat(390_000)});
        pair.ask("PutItem", &json!({"TableName": TABLE, "Item": item})).unwrap();
    }
    let keys: Vec<Value> = (0..45).map(key).collect();
    let request = json!({
        "RequestItems": {TABLE: {"Keys": keys, "ConsistentRead": true}},
        "ReturnConsumedCapacity": "TOTAL",
    });
    let answer = pair.ask("BatchGetItem", &request).unwrap();
    assert_eq!(answer["UnprocessedKeys"][TABLE]["Keys"].as_array().unwrap().len(), 2);
}

/// Every operator and function, with values of every pair of types.
#[test]
fn comparisons_agree() {
    let values = [
        json!({"S": ""}),
        json!({"S": "ab"}),
        json!({"S": "abc"}),
        json!({"S": "🎬é"}),
        json!({"N": "1"}),
        json!({"N": "1.0"}),
        json!({"N": "-2.5"}),
        json!({"N": "-10"}),
        json!({"N": "12345678901234567890.5"}),
        json!({"B": ""}),
        json!({"B": "YWI="}),
        json!({"B": "YWJj"}),
        json!({"B": "/w=="}),
        json!({"BOOL": true}),
        json!({"NULL": true}),
        json!({"L": [{"N": "1"}, {"S": "ab"}]}),
        json!({"M": {"a": {"N": "1.0"}}}),
        json!({"M": {"a": {"N": "1"}}}),
    ];
    let expressions = [
        "extra = :v",
        "extra <> :v",
        "extra < :v",
        "extra <= :v",
        "extra > :v",
        "extra >= :v",
        "extra IN (:v)",
        "begins_with(extra, :v)",
        "contains(extra, :v)",
        "size(extra) <= :v",
        "absent_one = :v",
        "absent_one <> :v",
        "absent_one < :v",
    ];
    let pair = Pair::new();
    for stored in &values {
        let put = |condition: &str, value: &Value| {
            let request = json!({
                "TableName": TABLE,
                "Item": {"pk": {"S": "p"}, "sk": {"S": "s"}, "extra": stored},
                "ConditionExpression": condition, "ExpressionAttributeValues": {":v": value},
            });
            pair.ask("PutItem", &request).unwrap()
        };
        put("attribute_exists(pk) OR pk <> :v", &values[0]);
        for size in 0..6 {
            put("size(extra) = :v", &json!({"N": size.to_string()}));
        }
        for expression in expressions {
            for value in &values {
                put(expression, value);
            }
        }
        for value in values
            .iter()
            .filter(|value| ["S", "N", "B"].iter().any(|kind| value.get(kind).is_some()))
        {
            put("extra BETWEEN :v AND :v", value);
        }
    }
}

#[test]
fn expression_syntax_agrees() {
    let pair = Pair::new();
    let item = json!({"pk": {"S": "p"}, "sk": {"S": "s"}});
    pair.ask("PutItem", &json!({"TableName": TABLE, "Item": item})).unwrap();
    let longest = [4096, 4097].map(|bytes| format!("{:bytes$}", "pk = :v"));
    let expressions = [
        "",
        " ",
        "()",
        "NOT",
        "pk",
        ":v",
        "#",
        ":",
        "= :v",
        "pk = ",
        "pk == :v",
        "pk ! :v",
        "pk AND :v",
        "pk = :v AND",
        "pk = :v :v",
        "pk = :v;",
        "a:v = :v",
        "1a = :v",
        "1 = :v",
        "attribute_exists(pk",
        "attribute_exists()",
        "attribute_exists(:v)",
        "attribute_exists(pk, sk)",
        "exists(pk)",
        "pk IN ()",
        "pk IN :v",
        "pk BETWEEN :v",
        "pk BETWEEN :v OR :v",
        "size(pk)",
        "size(:v) = :v",
        "size(pk) = size(sk)",
        "pk=:v",
        "not pk=:v Or pk<>:v",
        "attribute_exists (pk) and pk = :v",
        "begins_with(:v, pk)",
        "begins_with(pk)",
        "contains(:v, pk)",
        "contains(:v, :v)",
        "contains(pk, pk)",
        ":v = :v",
        ":v IN (pk)",
        "pk IN (pk, :v)",
        "pk BETWEEN pk AND :v",
        "(pk = :v",
        "pk = :v)",
        "((pk = :v) OR (pk = :v))",
        "((pk = :v))",
        "(((pk = :v)) AND sk = :v)",
        "(NOT (pk = :v))",
        "pk = :v OR pk = :v AND sk = :v",
        "NOT pk = :v AND sk = :v",
    ];
    for expression in expressions.into_iter().chain(longest.iter().map(String::as_str)) {
        for value in [json!({"S": "p"}), json!({"N": "1"})] {
            let mut request = json!({
                "TableName": TABLE, "Item": item, "ConditionExpression": expression,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            });
            if expression.contains(":v") {
                request["ExpressionAttributeValues"] = json!({":v": value});
            }
            pair.ask("PutItem", &request).unwrap();
        }
    }
}

/// In a filter too: there dynoxide says so when it has an item to look at.
#[test]
fn undefined_placeholders_agree() {
    let pair = Pair::new();
    let item = json!({"pk": {"S": "p"}, "sk": {"S": "s"}});
    pair.ask("PutItem", &json!({"TableName": TABLE, "Item": item})).unwrap();
    for filter in ["v = :undefined", "#undefined = :pk", "v = :pk"] {
        let mut request = json!({
            "TableName": TABLE, "FilterExpression": filter,
            "ExpressionAttributeValues": {":pk": {"S": "p"}},
        });
        pair.ask("Scan", &request).unwrap();
        request["KeyConditionExpression"] = json!("pk = :pk");
        pair.ask("Query", &request).unwrap();
    }
}

#[test]
fn reserved_words_agree() {
    let pair = Pair::new();
    let words = include_str!("../../../../dynamodb-in-memory/src/expression/reserved_words.txt");
    assert_eq!(words.split_ascii_whitespace().count(), 573, "as many as in the guide");
    let free = ["pk", "v", "since", "due_at", "most", "undelivered", "created_at", "holder"];
    for word in words.split_ascii_whitespace().chain(free) {
        for word in [word.to_owned(), word.to_lowercase()] {
            let put = json!({
                "TableName": TABLE, "Item": {"pk": {"S": "p"}, "sk": {"S": "s"}},
                "ConditionExpression": format!("attribute_not_exists({word}) OR attribute_exists(pk)"),
            });
            pair.ask("PutItem", &put).unwrap();
        }
    }
}
