//! Provider specs of an installation's own, one SSM parameter each, below
//! `<prefix>/provider-specs/`: a provider of one's own without building anything.
//!
//! Read once, when a function starts. A parameter holds the JSON as it is: the shipped specs
//! have 1.2 to 2.2 KB without spaces, a standard parameter takes 4 KB and an advanced one 8.
//! So nothing is compressed or split, and what the console shows is what is used.

use std::error::Error;

use aws_sdk_ssm::Client;
use domain::provider::catalogue::OwnSpec;

/// The specs could not be read. Whether there are any is then unknown, and a job of a
/// provider that is missing would be given up; so this must fail the start of a function.
#[derive(Debug, thiserror::Error)]
#[error("the provider specs below {path} could not be read")]
pub struct UserSpecsError {
    path: String,
    source: Box<dyn Error + Send + Sync>,
}

/// Reads all specs below `prefix`, such as `/render-relay/production`. What is in them is not
/// looked at here.
///
/// # Errors
/// When Parameter Store does not answer.
pub async fn load(client: &Client, prefix: &str) -> Result<Vec<OwnSpec>, UserSpecsError> {
    let path = format!("{}/provider-specs", prefix.trim_end_matches('/'));
    let request = client.get_parameters_by_path().path(&path).with_decryption(true);
    let mut pages = request.into_paginator().send();
    let mut specs = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| UserSpecsError {
            path: path.clone(),
            source: Box::new(error.into_service_error()),
        })?;
        for parameter in page.parameters.unwrap_or_default() {
            // Never absent; an empty one is left out with a reason like any other.
            let file = parameter.name.unwrap_or_default();
            let name = file.rsplit('/').next().unwrap_or_default().to_owned();
            specs.push(OwnSpec { file, name, json: parameter.value.unwrap_or_default() });
        }
    }
    Ok(specs)
}

#[cfg(all(test, feature = "fake-aws"))]
mod tests {
    use domain::id::ProviderName;

    use crate::fake::FakeAws;

    const SHOTSTACK: &str = include_str!("../../providers/shotstack.json");

    fn acme() -> String {
        SHOTSTACK.replace("\"shotstack\"", "\"acme\"")
    }

    #[tokio::test]
    async fn every_page_is_read_and_nothing_else() {
        let aws = FakeAws::new(&[
            ("provider-specs/a", "1"),
            ("provider-specs/b", "2"),
            ("provider-specs/c", "3"),
            ("provider-specs/deep/er", "4"),
            ("providers/zvid/api-key", "key"),
        ]);
        let specs = aws.user_specs().await.unwrap();
        let specs: Vec<_> =
            specs.iter().map(|spec| (&*spec.file, &*spec.name, &*spec.json)).collect();
        assert_eq!(
            specs,
            [
                ("/render-relay/test/provider-specs/a", "a", "1"),
                ("/render-relay/test/provider-specs/b", "b", "2"),
                ("/render-relay/test/provider-specs/c", "c", "3"),
            ]
        );
        assert_eq!(aws.asked(), ["GetParametersByPath"; 2]);
    }

    #[tokio::test]
    async fn a_wrong_one_does_not_keep_the_others_out() {
        let aws = FakeAws::new(&[
            ("provider-specs/acme", acme().as_str()),
            ("provider-specs/zvid", "{\"name\":5}"),
        ]);
        let tracker = aws.tracker_with(&aws.user_specs().await.unwrap()).unwrap();
        for name in ["acme", "zvid", "shotstack"] {
            let name = ProviderName::parse(name).unwrap();
            assert!(tracker.providers.catalogue().get(&name).is_some(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_an_error() {
        let error = FakeAws::without_parameters().user_specs().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the provider specs below /render-relay/test/provider-specs could not be read"
        );
    }
}
