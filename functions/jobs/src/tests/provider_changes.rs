//! Changes of provider specs that the settings do not fit.

use domain::provider::catalogue::Adjustments;

use super::providers::{Stack, VIRALSYNC};
use super::*;

/// Without its shipped spec the provider would be gone from a stack that was set up for `v2`.
#[tokio::test]
async fn removal_spares_spec_that_settings_need() {
    let environments = [("viralsync".to_owned(), "v2".to_owned())].into();
    let adjustments = Adjustments { environments, ..Adjustments::default() };
    let stack = Stack::adjusted(with_key().await, adjustments).await;
    let (_, listed) = stack.call("GET", None, "").await;
    let listed = listed["providers"].as_array().unwrap();
    let shown = listed.iter().find(|it| it["name"] == "viralsync").unwrap();
    assert_eq!((&shown["inForce"], &shown["origin"]), (&false.into(), &"shipped".into()));
    assert_eq!(shown["problem"], "viralsync has no environment `v2`");

    let v2 = "\"v2\": \"https://v2.viralsync.example\", \"default\":";
    let v2 = VIRALSYNC.replacen("\"default\":", v2, 1);
    let (status, put) = stack.call("PUT", Some("viralsync"), &v2).await;
    assert_eq!((status, &put["inForce"]), (200, &true.into()), "{put}");
    let (status, problem) = stack.call("DELETE", Some("viralsync"), "").await;
    assert_eq!((status, &problem["code"]), (409, &"shipped_spec_unfit".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("no environment `v2`"), "{problem}");
    let (_, shown) = stack.call("GET", Some("viralsync"), "").await;
    assert_eq!((&shown["inForce"], &shown["origin"]), (&true.into(), &"stored".into()));
}
