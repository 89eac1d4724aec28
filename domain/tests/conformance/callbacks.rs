//! What a provider posts.

use crate::matrix::Matrix;
use crate::meaning;
use crate::tested_provider::{TestedProvider, noon};
use domain::provider::EchoMask;

pub(crate) fn are_understood(subject: &TestedProvider, matrix: &mut Matrix) {
    for post in &subject.facts.callbacks {
        let body = post.bytes();
        let found = match subject.provider.spec.read_callback(&body, &EchoMask::default(), noon()) {
            Ok(callback) => meaning::callback(&callback),
            Err(error) => error.to_string(),
        };
        matrix.check(&String::from_utf8_lossy(&body), &found, &post.is);
    }
}
