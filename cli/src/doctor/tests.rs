use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ssm::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::*;

fn account(concurrency: u32) -> AccountLimits {
    AccountLimits { concurrency, unreserved: concurrency, ssm_high_throughput: false }
}

/// The template's defaults.
fn defaults() -> StackSettings {
    StackSettings { shards: 1, pollers_stay_awake: true, deliveries: 5, slow_deliveries: 2 }
}

#[test]
fn doctor_accepts_the_defaults_in_a_new_account() {
    assert!(problems(&account(10), &defaults()).is_empty());
    assert_eq!(left(&account(10), &defaults()), 2);
    assert!(hints(&account(10), &defaults()).is_empty());
    insta::assert_snapshot!(table(&account(10), &defaults()), @"
    concurrent executions of the account        10
      not reserved by any function              10
      pollers that wait                         1
      deliveries                                5
      deliveries to slow receivers              2
      left for submits, callbacks and the rest  2
    SSM calls a second                          standard, 40
    ");
}

#[test]
fn doctor_lowers_what_does_not_fit() {
    let greedy = StackSettings { shards: 4, deliveries: 8, slow_deliveries: 5, ..defaults() };
    let found = problems(&account(10), &greedy);
    let [problem] = found.as_slice() else { panic!("{found:?}") };
    insta::assert_snapshot!(problem, @"
    Pollers and deliveries may hold 17 of 10 concurrent executions; 2 should stay for submits and callbacks. Lower them with
      sam deploy --parameter-overrides PollersStayAwake=false DeliveryConcurrency=4 SlowDeliveryConcurrency=4
    or ask AWS for more:
      aws service-quotas request-service-quota-increase --service-code lambda --quota-code L-B99A9384 --desired-value 1000
    ");
    assert!(problems(&account(10), &fitting(&account(10), &greedy)).is_empty());
}

#[test]
fn doctor_knows_when_nothing_fits() {
    let taken = AccountLimits { unreserved: 4, ..account(10) };
    let found = problems(&taken, &defaults());
    assert!(found[0].contains("and even so ask AWS for more"), "{found:?}");
}

#[test]
fn doctor_says_what_may_be_raised() {
    let sleeping = StackSettings { pollers_stay_awake: false, ..defaults() };
    let hints = hints(&account(1_000), &sleeping).join("\n");
    assert!(hints.contains("DeliveryConcurrency may be up to 798"), "{hints}");
    assert!(hints.contains("PollersStayAwake=true"), "{hints}");
    assert!(hints.contains("high-throughput-enabled"), "{hints}");
}

/// Lambda and SSM with these functions.
#[derive(Clone, Debug)]
struct Aws(Vec<Value>);

impl Aws {
    fn answer(&self, request: &HttpRequest) -> Value {
        let path = request.uri();
        if request.headers().get("x-amz-target") == Some("AmazonSSM.GetServiceSetting") {
            return json!({"ServiceSetting": {"SettingValue": "true"}});
        }
        if path.contains("account-settings") {
            return json!({"AccountLimit":
                {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 900}});
        }
        if path.contains("event-source-mappings") {
            let mapping = |queue: &str, most: u32| {
                json!({
                    "EventSourceArn": format!("arn:aws:sqs:us-east-1:123456789012:{queue}"),
                    "ScalingConfig": {"MaximumConcurrency": most},
                })
            };
            return json!({"EventSourceMappings": [mapping("quick", 30), mapping("slow", 7)]});
        }
        // Two pages.
        match path.contains("Marker") {
            false => json!({"Functions": self.0[..1], "NextMarker": "more"}),
            true => json!({"Functions": self.0[1..]}),
        }
    }

    fn config(&self) -> SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "test");
        let connector = SharedHttpConnector::new(self.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build()
    }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.answer(&request).to_string();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), answer.into())))
    }
}

fn function(stack: &str, variables: Value) -> Value {
    let mut variables = variables;
    variables["PARAMETER_PREFIX"] = format!("/render-relay/{stack}").into();
    json!({"FunctionName": "f", "FunctionArn": "arn:f", "Environment": {"Variables": variables}})
}

#[tokio::test]
async fn doctor_finds_the_stack_among_others() {
    let deliver = json!({
        "DELIVERY_QUEUE_URL": "https://sqs/1/quick", "SLOW_DELIVERY_QUEUE_URL": "https://sqs/1/slow",
    });
    let poller = |shards: &str| json!({"POLLERS_STAY_AWAKE": "true", "POLLER_SHARDS": shards});
    let aws = Aws(vec![
        function("other", poller("16")),
        function("mine", deliver),
        function("mine", poller("4")),
    ]);
    let (account, settings) = read(&aws.config(), "mine").await.unwrap();
    assert_eq!((account.concurrency, account.unreserved), (1_000, 900));
    assert!(account.ssm_high_throughput);
    assert_eq!(
        settings,
        StackSettings { shards: 4, pollers_stay_awake: true, deliveries: 30, slow_deliveries: 7 }
    );
    let missing = read(&aws.config(), "absent").await.unwrap_err();
    assert!(missing.to_string().contains("no stack `absent`"), "{missing}");
}
