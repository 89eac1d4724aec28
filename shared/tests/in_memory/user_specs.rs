//! Provider specs among the parameters: [`shared::user_specs`].

use aws_in_memory::InMemoryAws;
use domain::id::ProviderName;

const SHOTSTACK: &str = include_str!("../../../providers/shotstack.json");

fn acme() -> String {
    SHOTSTACK.replace("\"shotstack\"", "\"acme\"")
}

#[tokio::test]
async fn all_pages_are_read() {
    let aws = InMemoryAws::new(&[
        ("provider-specs/a", "1"),
        ("provider-specs/b", "2"),
        ("provider-specs/c", "3"),
        ("provider-specs/deep/er", "4"),
        ("providers/zvid/api-key", "key"),
    ]);
    let specs = aws.user_specs().await.unwrap();
    let specs: Vec<_> = specs.iter().map(|spec| (&*spec.file, &*spec.name, &*spec.json)).collect();
    assert_eq!(
        specs,
        [
            ("/render-relay/test/provider-specs/a", "a", "1"),
            ("/render-relay/test/provider-specs/b", "b", "2"),
            ("/render-relay/test/provider-specs/c", "c", "3"),
        ]
    );
    assert_eq!(aws.calls(), ["GetParametersByPath"; 2]);
}

#[tokio::test]
async fn invalid_spec_leaves_others_loaded() {
    let aws = InMemoryAws::new(&[
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
async fn unreachable_parameters_are_an_error() {
    let error = InMemoryAws::without_parameters().user_specs().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the provider specs below /render-relay/test/provider-specs could not be read"
    );
}
