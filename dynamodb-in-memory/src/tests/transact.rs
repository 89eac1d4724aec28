//! Transactions: all or nothing.

use super::*;

fn key_item(name: &str, id: &str) -> Value {
    json!({"pk": {"S": "api-keys"}, "sk": {"S": name}, "id": {"S": id}})
}

fn key_of(name: &str) -> Value {
    json!({"pk": {"S": "api-keys"}, "sk": {"S": name}})
}

fn new_item(name: &str, id: &str) -> Value {
    let condition = "attribute_not_exists(pk)";
    json!({"Put": {"TableName": "t", "Item": key_item(name, id), "ConditionExpression": condition}})
}

/// `Delete` or `ConditionCheck`, if the item has this id.
fn with_id(action: &str, name: &str, id: &str) -> Value {
    json!({action: {
        "TableName": "t", "Key": key_of(name),
        "ConditionExpression": "id = :id", "ExpressionAttributeValues": {":id": {"S": id}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }})
}

fn transact(table: &Table, actions: &[Value]) -> (u16, Value) {
    table.answer("TransactWriteItems", &json!({"TransactItems": actions}))
}

fn with_two() -> Table {
    let table = table();
    put(&table, &key_item("one", "1"));
    put(&table, &key_item("two", "2"));
    table
}

#[tokio::test(start_paused = true)]
async fn transaction_is_made_as_a_whole() {
    let table = with_two();
    let before = table.consumed();
    let (status, answer) = transact(
        &table,
        &[
            with_id("ConditionCheck", "one", "1"),
            with_id("Delete", "two", "2"),
            new_item("three", "3"),
        ],
    );
    assert_eq!((status, answer), (200, json!({})));
    assert_eq!(table.items(), [key_item("one", "1"), key_item("three", "3")]);
    let after = table.consumed();
    assert_eq!(after.write_units - before.write_units, 6.0, "two for each action");
    assert_eq!(after.writes - before.writes, 1);
}

#[tokio::test(start_paused = true)]
async fn transaction_makes_nothing_when_one_fails() {
    let table = with_two();
    let before = table.items();
    for (at, last) in [
        with_id("ConditionCheck", "one", "9"),
        with_id("Delete", "one", "9"),
        new_item("one", "9"),
        with_id("ConditionCheck", "none", "9"),
    ]
    .into_iter()
    .enumerate()
    {
        let units = table.consumed().write_units;
        let actions = [with_id("Delete", "two", "2"), new_item("three", "3"), last];
        let (status, answer) = transact(&table, &actions);
        assert_eq!(status, 400, "{answer}");
        assert_eq!(
            (&answer["__type"], &answer["Message"]),
            (
                &"com.amazonaws.dynamodb.v20120810#TransactionCanceledException".into(),
                &"Transaction cancelled, please refer cancellation reasons for specific reasons \
                  [None, None, ConditionalCheckFailed]"
                    .into(),
            )
        );
        let reasons = answer["CancellationReasons"].as_array().unwrap();
        assert_eq!(reasons[..2], [json!({"Code": "None"}), json!({"Code": "None"})]);
        let shown = match at {
            0 | 1 => key_item("one", "1"),
            _ => Value::Null,
        };
        let code = &reasons[2]["Code"];
        assert_eq!((code, &reasons[2]["Item"]), (&"ConditionalCheckFailed".into(), &shown));
        assert_eq!(table.items(), before, "{at}");
        assert_eq!(table.consumed().write_units - units, 6.0, "it costs the same");
    }
}

#[tokio::test(start_paused = true)]
async fn transaction_request_is_checked() {
    let table = with_two();
    let many = |count: u32| (0..count).map(|n| new_item(&format!("n-{n}"), "1"));
    let too_large = "x".repeat(MAX_ITEM);
    for (actions, why) in [
        (vec![], "no action"),
        (many(101).collect(), "more than a hundred"),
        (
            vec![with_id("ConditionCheck", "one", "1"), with_id("Delete", "one", "1")],
            "two on one item",
        ),
        (vec![json!({"Update": {"Key": key_of("one")}})], "not implemented"),
        (vec![json!({"ConditionCheck": {"Key": key_of("one")}})], "no condition"),
        (vec![new_item("three", "3"), new_item("four", &too_large)], "too large"),
        (vec![json!({"Delete": {"Key": key_of("one"), "Expected": {}}})], "not read"),
    ] {
        let (status, answer) = transact(&table, &actions);
        let kind = &answer["__type"];
        assert_eq!((status, kind), (400, &"ValidationException".into()), "{why}: {answer}");
    }
    assert_eq!(table.items().len(), 2);
    let all: Vec<Value> = many(100).collect();
    assert_eq!(transact(&table, &all), (200, json!({})));
}

#[tokio::test(start_paused = true)]
async fn transaction_is_made_once_by_its_token() {
    let table = with_two();
    let request = json!({
        "TransactItems": [with_id("Delete", "one", "1")], "ClientRequestToken": "a-token",
    });
    assert_eq!(table.answer("TransactWriteItems", &request), (200, json!({})));
    put(&table, &key_item("one", "1"));
    assert_eq!(table.answer("TransactWriteItems", &request), (200, json!({})));
    assert_eq!(table.items().len(), 2, "a repeat deletes nothing");
    let mut other = request.clone();
    other["TransactItems"] = json!([with_id("Delete", "two", "2")]);
    let (status, answer) = table.answer("TransactWriteItems", &other);
    assert_eq!(status, 400);
    assert!(answer["__type"].as_str().unwrap().ends_with("#IdempotentParameterMismatchException"));
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(table.answer("TransactWriteItems", &request), (200, json!({})));
    assert_eq!(table.items().len(), 1, "tokens are remembered for ten minutes");
}

#[tokio::test(start_paused = true)]
async fn transaction_is_throttled_as_a_whole() {
    let table = with_two();
    table.limit(Throughput { key_writes: 3.0, ..Throughput::UNLIMITED });
    let actions = [with_id("Delete", "one", "1"), with_id("Delete", "two", "2")];
    let (status, answer) = transact(&table, &actions);
    let codes = answer["CancellationReasons"].as_array().unwrap();
    let codes: Vec<&Value> = codes.iter().map(|reason| &reason["Code"]).collect();
    assert_eq!(
        (status, codes),
        (400, vec![&json!("None"), &json!("ProvisionedThroughputExceeded")])
    );
    assert_eq!(table.items().len(), 2);
    assert_eq!(transact(&table, &actions[..1]).0, 200, "what it was refused used nothing");
}
