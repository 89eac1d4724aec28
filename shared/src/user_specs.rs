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
