//! The parameters of a request's query string.

use std::borrow::Cow;

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use shared::api::Problem;

use crate::reading::invalid_parameter;

/// The parameters as the caller wrote them. They are read from the raw query string: API Gateway
/// joins the values of a repeated parameter with commas, so in its own map a comma within a value
/// cannot be told from a second value ("Create AWS Lambda proxy integrations for HTTP APIs",
/// payload format 2.0).
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn of(request: &'a ApiGatewayV2httpRequest) -> Self {
        let raw = request.raw_query_string.as_deref().unwrap_or_default();
        Self(url::form_urlencoded::parse(raw.as_bytes()).collect())
    }

    /// The value of a parameter, if it is given.
    ///
    /// # Errors
    /// When it is given more than once: 422.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(given, _)| given == name);
        let first = values.next().map(|(_, value)| value.as_ref());
        match values.next() {
            None => Ok(first),
            Some(_) => Err(invalid_parameter(name, "must be given once")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(raw: &str) -> ApiGatewayV2httpRequest {
        let mut request = ApiGatewayV2httpRequest::default();
        request.raw_query_string = Some(raw.to_owned());
        request
    }

    #[test]
    fn query_value_is_what_was_written() {
        for (raw, value) in [
            ("source=shop,42", Some("shop,42")),
            ("source=shop%2C42", Some("shop,42")),
            ("other=1&source=a%26b%3Dc%25", Some("a&b=c%")),
            ("source=%C3%A4+b", Some("ä b")),
            ("s%6Furce=x", Some("x")),
            ("source=", Some("")),
            ("source", Some("")),
            ("sources=x", None),
            ("", None),
        ] {
            assert_eq!(Query::of(&request(raw)).get("source").unwrap(), value, "{raw}");
        }
        assert_eq!(Query::of(&ApiGatewayV2httpRequest::default()).get("source").unwrap(), None);
    }

    #[test]
    fn query_parameter_given_twice_is_refused() {
        let request = request("source=shop&source=42&state=failed");
        assert!(Query::of(&request).get("source").is_err());
        assert_eq!(Query::of(&request).get("state").unwrap(), Some("failed"));
    }
}
