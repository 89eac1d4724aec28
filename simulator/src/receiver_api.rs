//! The HTTP side of a customer's webhook receiver.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;

use crate::simulation::Simulation;

/// Handles `POST /receiver/{name}`.
pub(crate) async fn receive(
    State(simulation): State<Arc<Simulation>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let now = simulation.environment.now();
    let (answer, release) = simulation.state().receivers.receive(&name, &headers, &body, now);
    if let Some(release) = release {
        release.await;
    }
    if answer.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(answer.delay_ms.into())).await;
    }
    (answer.status.get(), answer.headers.0, answer.body).into_response()
}
