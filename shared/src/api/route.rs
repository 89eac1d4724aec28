//! The routes that callers use, and the scope that a key needs for each.
//!
//! To add a route, add it to [`Route`], with its row in [`Route::row`], and to [`Route::ALL`]. A
//! contract test compares them with the routes of `template.yaml` and the operations of
//! `docs/openapi.yaml`.

use domain::credential::Scope;

/// A route of the API, other than those of providers' callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    SubmitJob,
    ListJobs,
    ShowJob,
    CancelJob,
    ShowJobDeliveries,
    RedeliverJob,
    DropDelivery,
    ListDeliveries,
    RecoverDeliveries,
    ShowWebhookConfig,
    PutWebhookConfig,
    DeleteWebhookConfig,
    RotateSecret,
    TestWebhook,
    ShowWebhookTest,
    ListKeys,
    CreateKey,
    RevokeKey,
    ListProviders,
    ShowProvider,
    PutProvider,
    RemoveProvider,
    ResumeProvider,
}

impl Route {
    /// All routes.
    pub const ALL: [Self; 23] = [
        Self::SubmitJob,
        Self::ListJobs,
        Self::ShowJob,
        Self::CancelJob,
        Self::ShowJobDeliveries,
        Self::RedeliverJob,
        Self::DropDelivery,
        Self::ListDeliveries,
        Self::RecoverDeliveries,
        Self::ShowWebhookConfig,
        Self::PutWebhookConfig,
        Self::DeleteWebhookConfig,
        Self::RotateSecret,
        Self::TestWebhook,
        Self::ShowWebhookTest,
        Self::ListKeys,
        Self::CreateKey,
        Self::RevokeKey,
        Self::ListProviders,
        Self::ShowProvider,
        Self::PutProvider,
        Self::RemoveProvider,
        Self::ResumeProvider,
    ];

    /// The table: API Gateway's key of the route, and the scope that it needs. What shows a
    /// submitted payload or a provider's answer needs [`Scope::Operate`]; what changes keys,
    /// specs, receivers or secrets, [`Scope::Admin`]; and what sends a delivery to a URL of the
    /// caller's needs that too.
    fn row(self) -> (&'static str, Scope) {
        match self {
            Self::SubmitJob => ("POST /v1/jobs", Scope::Submit),
            Self::ListJobs => ("GET /v1/jobs", Scope::Read),
            Self::ShowJob => ("GET /v1/jobs/{jobId}", Scope::Read),
            Self::CancelJob => ("POST /v1/jobs/{jobId}/cancel", Scope::Operate),
            Self::ShowJobDeliveries => ("GET /v1/jobs/{jobId}/deliveries", Scope::Read),
            Self::RedeliverJob => ("POST /v1/jobs/{jobId}/redeliver", Scope::Operate),
            Self::DropDelivery => ("POST /v1/jobs/{jobId}/drop-delivery", Scope::Operate),
            Self::ListDeliveries => ("GET /v1/deliveries", Scope::Read),
            Self::RecoverDeliveries => ("POST /v1/deliveries/recover", Scope::Operate),
            Self::ShowWebhookConfig => ("GET /v1/webhook-config", Scope::Read),
            Self::PutWebhookConfig => ("PUT /v1/webhook-config", Scope::Admin),
            Self::DeleteWebhookConfig => ("DELETE /v1/webhook-config", Scope::Admin),
            Self::RotateSecret => ("POST /v1/webhook-config/rotate-secret", Scope::Admin),
            Self::TestWebhook => ("POST /v1/webhook-config/test", Scope::Operate),
            Self::ShowWebhookTest => ("GET /v1/webhook-config/test/{eventId}", Scope::Read),
            Self::ListKeys => ("GET /v1/keys", Scope::Admin),
            Self::CreateKey => ("POST /v1/keys", Scope::Admin),
            Self::RevokeKey => ("DELETE /v1/keys/{keyId}", Scope::Admin),
            Self::ListProviders => ("GET /v1/providers", Scope::Read),
            Self::ShowProvider => ("GET /v1/providers/{name}", Scope::Read),
            Self::PutProvider => ("PUT /v1/providers/{name}", Scope::Admin),
            Self::RemoveProvider => ("DELETE /v1/providers/{name}", Scope::Admin),
            Self::ResumeProvider => ("POST /v1/providers/{name}/resume", Scope::Operate),
        }
    }

    /// API Gateway's key of the route: method and path.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.row().0
    }

    /// The scope that a key needs for it.
    #[must_use]
    pub fn scope(self) -> Scope {
        self.row().1
    }

    /// The route of this key.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.key() == key)
    }
}
