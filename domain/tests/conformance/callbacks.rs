//! What a provider posts.

use crate::matrix::Matrix;
use crate::meaning;
use crate::subject::{Subject, noon};

pub(crate) fn are_understood(subject: &Subject, matrix: &mut Matrix) {
    for post in &subject.facts.callbacks {
        let body = post.bytes();
        let found = match subject.provider.spec.read_callback(&body, noon()) {
            Ok(callback) => meaning::callback(&callback),
            Err(error) => error.to_string(),
        };
        matrix.check(&String::from_utf8_lossy(&body), &found, &post.is);
    }
}
