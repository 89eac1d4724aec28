//! The address that a callback comes to: a job's own URL or an account's, with a slash at its end
//! or without.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use shared::api;

/// What a callback's path names, as it was sent. Nothing of it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallbackAddress<'a> {
    pub(crate) provider: &'a str,
    pub(crate) place: Place<'a>,
}

/// Whose URL it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// `/v1/webhooks/{provider}/{jobId}/{token}`
    Job { id: &'a str, token: &'a str },
    /// `/v1/webhooks/{provider}`
    Account,
}

/// Shows no token.
impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job { id, .. } => f.debug_struct("Job").field("id", id).finish_non_exhaustive(),
            Self::Account => f.write_str("Account"),
        }
    }
}

impl<'a> CallbackAddress<'a> {
    /// The address of a request; none when its path has another form.
    ///
    /// API Gateway takes no route with a slash at its end, so what has one comes by the route that
    /// has the rest of the path as one parameter.
    pub(crate) fn of(request: &'a ApiGatewayV2httpRequest) -> Option<Self> {
        let parameter = |name| api::path_parameter(request, name);
        let rest = parameter("proxy");
        if rest.is_empty() {
            return match parameter("token") {
                "" => Self::new(&[parameter("provider")]),
                token => Self::new(&[parameter("provider"), parameter("jobId"), token]),
            };
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        Self::new(&rest.split('/').collect::<Vec<_>>())
    }

    fn new(parts: &[&'a str]) -> Option<Self> {
        match *parts {
            [provider] if !provider.is_empty() => Some(Self { provider, place: Place::Account }),
            [provider, id, token] if parts.iter().all(|part| !part.is_empty()) => {
                Some(Self { provider, place: Place::Job { id, token } })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[(&str, &str)]) -> ApiGatewayV2httpRequest {
        let mut request = ApiGatewayV2httpRequest::default();
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        request.path_parameters = parameters.collect();
        request
    }

    #[test]
    fn address_ignores_one_slash_at_its_end() {
        let job =
            Some(CallbackAddress { provider: "zvid", place: Place::Job { id: "j", token: "t" } });
        let account = Some(CallbackAddress { provider: "zvid", place: Place::Account });
        for (expected, parameters) in [
            (job, vec![("provider", "zvid"), ("jobId", "j"), ("token", "t")]),
            (job, vec![("proxy", "zvid/j/t/")]),
            (job, vec![("proxy", "zvid/j/t")]),
            (account, vec![("provider", "zvid")]),
            (account, vec![("proxy", "zvid/")]),
            (account, vec![("proxy", "zvid")]),
            (None, vec![("proxy", "zvid//")]),
            (None, vec![("proxy", "/zvid")]),
            (None, vec![("proxy", "zvid//t")]),
            (None, vec![("proxy", "zvid/j")]),
            (None, vec![("proxy", "zvid/j/t/x")]),
            (None, vec![("proxy", "/")]),
            (None, vec![]),
        ] {
            let request = request(&parameters);
            assert_eq!(CallbackAddress::of(&request), expected, "{parameters:?}");
        }
    }

    #[test]
    fn address_shows_no_token_in_debug() {
        let request = request(&[("proxy", "zvid/j/secret")]);
        let shown = format!("{:?}", CallbackAddress::of(&request));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
