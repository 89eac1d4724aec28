//! The proxy in front of a server that returns the request it got.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{HttpAnswer, TestServer, unserved_url};

/// Returns each request, with capacity as DynamoDB reports it. Refuses bodies that contain
/// `refuse`.
async fn stand_in(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    if body.contains("refuse") {
        let error =
            r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}"#;
        return (StatusCode::BAD_REQUEST, error).into_response();
    }
    let header = |name: &str| head.headers.get(name).map(|it| it.to_str().unwrap().to_owned());
    let seen = json!({
        "seen": {
            "method": head.method.as_str(),
            "uri": head.uri.to_string(),
            "host": header("host"),
            "authorization": header("authorization"),
            "length": header("content-length"),
            "body": body,
        },
        "ConsumedCapacity": {
            "TableName": "t",
            "CapacityUnits": 3.0,
            "Table": {"CapacityUnits": 1.0},
            "GlobalSecondaryIndexes": {"active": {"CapacityUnits": 2.0}},
        },
    });
    (StatusCode::OK, [("x-amzn-requestid", "r-1")], seen.to_string()).into_response()
}

async fn server() -> TestServer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(stand_in)).await });
    TestServer::start_before(Some(upstream)).await
}

async fn call(server: &TestServer, target: &str, body: &str) -> HttpAnswer {
    let headers = [("x-amz-target", target), ("host", "aws.example"), ("authorization", "AWS4 x")];
    server.send(Method::POST, &format!("{}/a%2Fb?c=d%20e", server.aws_url()), &headers, body).await
}

#[tokio::test]
async fn dynamodb_calls_report_capacity() {
    let server = server().await;
    let answer = call(&server, "DynamoDB_20120810.PutItem", r#"{"TableName":"t"}"#).await;
    let seen = &answer.json()["seen"];
    let asked: Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
    assert_eq!(asked, json!({"TableName": "t", "ReturnConsumedCapacity": "INDEXES"}));
    assert_eq!(seen["length"], seen["body"].as_str().unwrap().len().to_string());

    call(&server, "DynamoDB_20120810.Query", r#"{"TableName":"other"}"#).await;

    let mut ledger = server.look("/_control/aws").await;
    for record in ledger["requests"].as_array_mut().unwrap() {
        assert!(record.as_object_mut().unwrap().remove("at").unwrap().is_i64());
    }
    assert_eq!(
        ledger,
        json!({"seq": 2, "requests": [
            {
                "seq": 1, "service": "dynamodb", "operation": "PutItem", "invocation": null,
                "request": r#"{"TableName":"t"}"#, "status": 200, "error": null,
                "metered": true, "write_units": 3.0, "read_units": 0.0, "table_units": 1.0,
                "index_units": {"active": 2.0},
            },
            {
                "seq": 2, "service": "dynamodb", "operation": "Query", "invocation": null,
                "request": r#"{"TableName":"other"}"#, "status": 200, "error": null,
                "metered": true, "write_units": 0.0, "read_units": 3.0, "table_units": 1.0,
                "index_units": {"active": 2.0},
            },
        ]})
    );
    let since = server.look("/_control/aws?since=1").await;
    assert_eq!(since["requests"][0]["operation"], "Query");
    let mentions = server.look("/_control/aws?contains=%22t%22").await;
    assert_eq!(mentions["requests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn other_calls_pass_unchanged() {
    let server = server().await;
    let body = r#"{"MessageBody":"x"}"#;
    let answer = call(&server, "AmazonSQS.SendMessage", body).await;

    assert_eq!(
        (answer.status, &answer.headers["x-amzn-requestid"]),
        (200, &"r-1".parse().unwrap())
    );
    assert_eq!(
        answer.json()["seen"],
        json!({
            "method": "POST", "uri": "/a%2Fb?c=d%20e", "host": "aws.example",
            "authorization": "AWS4 x", "length": body.len().to_string(), "body": body,
        })
    );
    let ledger = server.look("/_control/aws").await;
    assert_eq!(ledger["requests"][0]["service"], "sqs");
    assert_eq!(ledger["requests"][0]["write_units"], 0.0);
}

#[tokio::test]
async fn refused_write_has_its_reason() {
    let server = server().await;
    let answer = call(&server, "DynamoDB_20120810.UpdateItem", r#"{"refuse":1}"#).await;
    assert_eq!(answer.status, 400);

    let ledger = server.look("/_control/aws").await;
    let record = &ledger["requests"][0];
    assert_eq!(record["error"], "ConditionalCheckFailedException");
    assert_eq!((&record["status"], &record["write_units"]), (&json!(400), &json!(0.0)));
}

#[tokio::test]
async fn unreachable_endpoint_is_bad_gateway() {
    let (_port, unserved_url) = unserved_url();
    let server = TestServer::start_before(Some(unserved_url)).await;
    assert_eq!(call(&server, "AmazonSSM.GetParameter", "{}").await.status, 502);
    let ledger = server.look("/_control/aws").await;
    assert_eq!(ledger["requests"][0]["status"], 502);
}
