//! Reading jobs and their deliveries.

use aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use domain::id::{JobId, SourceRecordId};
use domain::job::State;
use serde_json::{Value, json};
use shared::api::{self, Problem};
use shared::store::StoreError;
use shared::view;

use crate::Jobs;
use crate::query::Query;

/// How many items a page has by default, and at most.
const DEFAULT_PAGE: u8 = 20;
const MAX_PAGE: u8 = 100;

impl Jobs {
    /// GET /v1/jobs/{jobId}
    pub(crate) async fn show(&self, id: &JobId) -> Result<ApiGatewayV2httpResponse, Problem> {
        let job = self.tracker.store.job(id).await?;
        let job = job.ok_or_else(|| Problem::not_found("job"))?;
        let deliveries = self.tracker.store.deliveries(id).await?;
        Ok(api::json(200, &view::job(&job, deliveries.last())))
    }

    /// GET /v1/jobs/{jobId}/deliveries
    pub(crate) async fn deliveries(&self, id: &JobId) -> Result<ApiGatewayV2httpResponse, Problem> {
        let deliveries = self.tracker.store.deliveries(id).await?;
        if deliveries.is_empty() {
            let job = self.tracker.store.job(id).await?;
            job.ok_or_else(|| Problem::not_found("job"))?;
        }
        let shown: Vec<Value> = deliveries.iter().map(view::delivery).collect();
        Ok(api::json(200, &json!({"deliveries": shown})))
    }

    /// GET /v1/jobs, by `sourceRecordId` or `state`; paged by `limit` and `cursor`.
    pub(crate) async fn list(
        &self,
        request: &ApiGatewayV2httpRequest,
    ) -> Result<ApiGatewayV2httpResponse, Problem> {
        let query = Query::of(request);
        let limit = page_limit(query.get("limit")?)?;
        let cursor = query.get("cursor")?;
        let page = match (query.get("sourceRecordId")?, query.get("state")?) {
            (Some(source), None) => {
                let source = SourceRecordId::parse(source)
                    .map_err(|error| invalid_parameter("sourceRecordId", &error.to_string()))?;
                self.tracker.store.jobs_of_source(&source, cursor, limit).await
            }
            (None, Some(state)) => {
                let state = State::from_name(state).ok_or_else(|| {
                    let all = State::ALL.map(State::name).join(", ");
                    invalid_parameter("state", &format!("must be one of {all}"))
                })?;
                self.tracker.store.jobs_in_state(state, cursor, limit).await
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(invalid_parameter(
                    "sourceRecordId",
                    "or `state` must be given, and not both",
                ));
            }
        };
        let page = page.map_err(|cause| page_problem(&cause))?;
        let jobs: Vec<Value> = page.items.iter().map(|job| view::job(job, None)).collect();
        Ok(api::json(200, &json!({"jobs": jobs, "next": page.next})))
    }
}

/// The page size of a request.
pub(crate) fn page_limit(parameter: Option<&str>) -> Result<u8, Problem> {
    match parameter {
        None => Ok(DEFAULT_PAGE),
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_PAGE).contains(limit))
            .ok_or_else(|| invalid_parameter("limit", "must be a number from 1 to 100")),
    }
}

/// The problem document of a page that cannot be read.
pub(crate) fn page_problem(cause: &StoreError) -> Problem {
    match cause {
        // Only the cursor comes from the caller.
        StoreError::Corrupt { kind: "page", .. } => {
            invalid_parameter("cursor", "is not the `next` of a former page")
        }
        StoreError::Corrupt { .. } | StoreError::Unavailable { .. } => Problem::unavailable(cause),
    }
}

pub(crate) fn invalid_parameter(parameter: &str, problem: &str) -> Problem {
    let detail = format!("`{parameter}` {problem}.");
    Problem::new(422, "invalid_parameter", "Invalid parameter", detail).about(parameter)
}
