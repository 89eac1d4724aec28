mod transact;

use super::*;

fn table() -> Table {
    Table::default()
}

fn put(table: &Table, item: &Value) -> f64 {
    let before = table.consumed().write_units;
    let (status, body) = table.answer("PutItem", &json!({"TableName": "t", "Item": item}));
    assert_eq!(status, 200, "{body}");
    table.consumed().write_units - before
}

fn job(id: u32, since: Option<u32>) -> Value {
    let mut item = json!({
        "pk": {"S": format!("job#{id}")}, "sk": {"S": "job"},
        "source": {"S": "product"}, "created_at": {"N": id.to_string()},
    });
    if let Some(since) = since {
        item["shard"] = json!({"N": "0"});
        item["since"] = json!({"N": since.to_string()});
    }
    item
}

fn ids(answer: &Value) -> Vec<&str> {
    let items = answer["Items"].as_array().unwrap();
    items.iter().map(|item| item["pk"]["S"].as_str().unwrap()).collect()
}

fn active(table: &Table, extra: &Value) -> Value {
    let mut request = json!({
        "IndexName": "active",
        "KeyConditionExpression": "#shard = :shard",
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":shard": {"N": "0"}},
    });
    request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let (status, body) = table.answer("Query", &request);
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(start_paused = true)]
async fn index_entries_cost_both_ways() {
    let table = table();
    assert_eq!(put(&table, &job(1, Some(5))), 3.0, "the job, active and by_source");
    assert_eq!(put(&table, &job(1, Some(5))), 1.0, "no key of an index changed");
    assert_eq!(put(&table, &job(1, Some(6))), 3.0, "out and in again");
    assert_eq!(put(&table, &job(1, None)), 2.0);
    assert_eq!(ids(&active(&table, &json!({}))), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn index_is_sorted_and_paged() {
    let table = table();
    for (id, since) in [(1, 30), (2, 4), (3, 200)] {
        put(&table, &job(id, Some(since)));
    }
    let all = active(&table, &json!({}));
    assert_eq!(ids(&all), ["job#2", "job#1", "job#3"]);
    assert_eq!(all["Items"][0].as_object().unwrap().len(), 4, "keys only");
    assert_eq!(
        ids(&active(&table, &json!({"ScanIndexForward": false}))),
        ["job#3", "job#1", "job#2"]
    );

    let first = active(&table, &json!({"Limit": 2}));
    assert_eq!(ids(&first), ["job#2", "job#1"]);
    let next = json!({"ExclusiveStartKey": first["LastEvaluatedKey"].clone()});
    let second = active(&table, &next);
    assert_eq!((ids(&second), second.get("LastEvaluatedKey")), (vec!["job#3"], None));
}

#[tokio::test(start_paused = true)]
async fn index_may_lag_behind_table() {
    let table = table();
    table.delay_indexes(Duration::from_secs(2));
    put(&table, &job(1, Some(1)));
    assert_eq!(ids(&active(&table, &json!({}))), [""; 0]);
    assert_eq!(table.indexed("active").len(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ids(&active(&table, &json!({}))), ["job#1"]);
}

#[tokio::test(start_paused = true)]
async fn eventual_reads_lag_behind_writes() {
    let table = table();
    table.lag_reads(Duration::from_millis(500));
    put(&table, &job(1, Some(1)));
    let key = json!({"pk": {"S": "job#1"}, "sk": {"S": "job"}});
    let by_get = |consistent: bool| {
        let request = json!({"Key": key, "ConsistentRead": consistent});
        table.answer("GetItem", &request).1["Item"]["since"]["N"].clone()
    };
    let by_batch = || {
        let (_, answer) =
            table.answer("BatchGetItem", &json!({"RequestItems": {"t": {"Keys": [key]}}}));
        answer["Responses"]["t"][0]["since"]["N"].clone()
    };
    let by_query = || {
        let wanted = json!({
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": "job#1"}},
        });
        table.answer("Query", &wanted).1["Items"][0]["since"]["N"].clone()
    };
    let by_scan = || table.answer("Scan", &json!({})).1["Items"][0]["since"]["N"].clone();
    let seen = || [by_get(false), by_batch(), by_query(), by_scan()];
    assert_eq!((seen(), by_get(true)), ([const { Value::Null }; 4], json!("1")), "not there yet");

    tokio::time::advance(Duration::from_millis(300)).await;
    put(&table, &job(1, Some(2)));
    assert_eq!((seen(), by_get(true)), ([const { Value::Null }; 4], json!("2")));
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(seen(), [const { "1" }; 4].map(Value::from), "the first write, not the second");
    tokio::time::advance(Duration::from_millis(300)).await;
    assert_eq!(seen(), [const { "2" }; 4].map(Value::from));

    let at_once = json!({
        "Item": job(1, Some(3)), "ConditionExpression": "since = :since",
        "ExpressionAttributeValues": {":since": {"N": "2"}},
    });
    assert_eq!(table.answer("PutItem", &at_once).0, 200);
    assert_eq!(table.answer("PutItem", &at_once).0, 400, "conditions see everything");
}

#[tokio::test(start_paused = true)]
async fn busy_table_splits_a_batch() {
    let table = table();
    table.split_batches();
    let keys: Vec<Value> = (1..=3)
        .map(|id| {
            put(&table, &job(id, None));
            json!({"pk": {"S": format!("job#{id}")}, "sk": {"S": "job"}})
        })
        .collect();
    let ask = |wanted: &Value| table.answer("BatchGetItem", &json!({"RequestItems": wanted})).1;
    let first = ask(&json!({"t": {"Keys": keys, "ConsistentRead": true}}));
    assert_eq!(first["Responses"]["t"].as_array().unwrap().len(), 2);
    let rest = &first["UnprocessedKeys"];
    assert_eq!(*rest, json!({"t": {"Keys": [keys[2]], "ConsistentRead": true}}));
    let second = ask(rest);
    assert_eq!(second["Responses"]["t"], json!([job(3, None)]));
    assert_eq!(second["UnprocessedKeys"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn failed_condition_shows_the_item() {
    let table = table();
    put(&table, &job(1, None));
    let before = table.consumed().write_units;
    let request = json!({
        "Item": job(1, None),
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    let (status, body) = table.answer("PutItem", &request);
    assert_eq!(status, 400);
    assert_eq!(body["Item"], job(1, None));
    assert_eq!(table.consumed().write_units - before, 1.0);
}

#[tokio::test(start_paused = true)]
async fn filter_applies_after_the_page() {
    let table = table();
    for id in 1..=3 {
        put(&table, &job(id, (id == 3).then_some(1)));
    }
    let mut request = json!({"FilterExpression": "attribute_exists(since)", "Limit": 2});
    let (_, first) = table.answer("Scan", &request);
    assert_eq!((ids(&first), &first["ScannedCount"]), (vec![], &json!(2)));
    request["ExclusiveStartKey"] = first["LastEvaluatedKey"].clone();
    assert_eq!(ids(&table.answer("Scan", &request).1), ["job#3"]);
}

#[tokio::test(start_paused = true)]
async fn update_keeps_other_attributes() {
    let table = table();
    put(&table, &job(1, None));
    let request = json!({
        "Key": {"pk": {"S": "job#1"}, "sk": {"S": "job"}},
        "UpdateExpression": "SET epoch = if_not_exists(epoch, :one) + :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
        "ReturnValues": "ALL_NEW",
    });
    let (_, updated) = table.answer("UpdateItem", &request);
    assert_eq!(updated["Attributes"]["epoch"], json!({"N": "2"}));
    assert_eq!(updated["Attributes"]["source"], json!({"S": "product"}));
}

#[test]
fn unknown_parameters_are_refused() {
    let table = table();
    for (operation, request) in [
        ("BatchWriteItem", json!({})),
        ("PutItem", json!({"Item": job(1, None), "Expected": {}})),
        ("GetItem", json!({"Key": {"pk": {"S": "a"}}})),
        (
            "Query",
            json!({"KeyConditionExpression": "sk = :s", "ExpressionAttributeValues": {":s": {"S": "a"}}}),
        ),
    ] {
        assert_eq!(table.answer(operation, &request).0, 400, "{operation}");
    }
}

fn status(table: &Table, operation: &str, request: &Value) -> (u16, String) {
    let (status, body) = table.answer(operation, request);
    (status, body["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn partition_key_has_its_throughput() {
    let table = table();
    table.limit(Throughput::default());
    let write = |pk: &str| {
        let item = json!({"pk": {"S": pk}, "sk": {"S": "x"}});
        status(&table, "PutItem", &json!({"Item": item}))
    };
    assert!((0..1000).all(|_| write("hot").0 == 200));
    assert_eq!(write("hot"), (400, "ProvisionedThroughputExceededException".to_owned()));
    assert_eq!(write("other").0, 200, "another key has its own");
    let read = json!({"Key": {"pk": {"S": "hot"}, "sk": {"S": "x"}}, "ConsistentRead": true});
    assert!((0..3000).all(|_| status(&table, "GetItem", &read).0 == 200));
    assert_eq!(status(&table, "GetItem", &read).0, 400);
    let keys = json!([read["Key"], {"pk": {"S": "other"}, "sk": {"S": "x"}}]);
    let (code, body) =
        table.answer("BatchGetItem", &json!({"RequestItems": {"t": {"Keys": keys}}}));
    assert_eq!(code, 400, "nothing of it is read: {body}");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!([write("hot").0, write("hot").0], [200, 400]);
    assert_eq!(table.throttled(), [(Throttle::Key, 4)].into());
}

#[tokio::test(start_paused = true)]
async fn throttled_index_throttles_its_table() {
    let table = table();
    table.limit(Throughput::default());
    for id in 0..1000 {
        put(&table, &job(id, Some(id)));
    }
    let item = json!({"Item": job(1000, Some(1000))});
    assert_eq!(status(&table, "PutItem", &item).0, 400);
    assert_eq!(table.throttled(), [(Throttle::IndexKey, 1)].into());
    assert_eq!(table.item("job#1000", "job"), None, "and nothing is written");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(status(&table, "PutItem", &item).0, 200);
}

#[tokio::test(start_paused = true)]
async fn moved_index_entry_uses_its_key_twice() {
    let table = table();
    put(&table, &job(1, Some(5)));
    table.limit(Throughput { key_writes: 1.0, ..Throughput::default() });
    let moved = json!({"Item": job(1, Some(6))});
    assert_eq!(status(&table, "PutItem", &moved).0, 400);
    assert_eq!(table.throttled(), [(Throttle::IndexKey, 1)].into());
    table.limit(Throughput { key_writes: 2.0, ..Throughput::default() });
    assert_eq!(status(&table, "PutItem", &moved).0, 200);
}

#[tokio::test(start_paused = true)]
async fn new_table_has_its_throughput() {
    let table = table();
    table.limit(Throughput::default());
    let write = |id: u32| {
        let item = json!({"pk": {"S": format!("p#{id}")}, "sk": {"S": "x"}});
        status(&table, "PutItem", &json!({"Item": item}))
    };
    assert!((0..4000).all(|id| write(id).0 == 200));
    assert_eq!(write(4000), (400, "ThrottlingException".to_owned()));
    assert_eq!(table.throttled(), [(Throttle::Whole, 1)].into());
    table.limit(Throughput::UNLIMITED);
    assert_eq!(write(4000).0, 200);
}
