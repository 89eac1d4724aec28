//! Answers to a submit that may hide a render: for each way to find a render again, one render is
//! made, found, and told of, and the caller is not told to ask for another.

use std::time::Duration;

use serde_json::json;
use tests::SimulatedProvider;

use crate::harness::backend::CallerRequest;
use crate::harness::bundle::{Bundle, RunSettings};

/// One provider for each submit safety.
const SAFETIES: [SimulatedProvider; 3] =
    [SimulatedProvider::Zvid, SimulatedProvider::Json2Video, SimulatedProvider::Shotstack];

#[test]
fn submit_that_hides_render_is_unclear() {
    for status in [301, 303, 307, 409, 425, 499, 503] {
        let settings =
            RunSettings { horizon: Duration::from_secs(2 * 3600), ..RunSettings::default() };
        let bundle = Bundle::run(settings, async |bundle| {
            for provider in SAFETIES {
                let tag = format!("hidden-{}", provider.name());
                let options = json!({"durationMs": 15_000, "submitHiddenBy": status});
                bundle.set_render_options(provider, &tag, &options).await;
                bundle.submit(&CallerRequest::new(provider, &tag)).await;
            }
        });
        let log = bundle.checker.log().text();
        assert_eq!(bundle.checker.violations(), [""; 0], "{status}: {log}");
        let completed = bundle
            .aws
            .events()
            .into_iter()
            .filter(|event| event.detail_type == "video.render.completed");
        assert_eq!(completed.count(), SAFETIES.len(), "{status}: {log}");
    }
}
