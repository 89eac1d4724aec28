//! What `template.yaml` says of the limits that the functions run under. A property that is a
//! parameter of the stack has the parameter's default, unless a run sets another.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use aws_in_memory::quotas::Rate;
use aws_in_memory::quotas::routes::RouteThrottles;
use serde_json::Value;

use crate::harness::event_sources::Source;
use crate::harness::functions::Function;

/// Parameters of the stack, by name.
pub(crate) type Parameters = BTreeMap<&'static str, u32>;

#[derive(Clone, Debug)]
pub(crate) struct Template {
    document: &'static Value,
    parameters: Parameters,
}

impl Template {
    pub(crate) fn with(parameters: Parameters) -> Self {
        static DOCUMENT: OnceLock<Value> = OnceLock::new();
        let document = DOCUMENT.get_or_init(|| {
            serde_saphyr::from_str(include_str!("../../../../template.yaml")).unwrap()
        });
        for name in parameters.keys() {
            assert!(document["Parameters"][name].is_object(), "the template has no {name}");
        }
        Self { document, parameters }
    }

    /// Whether the function may be invoked again and again in one chain of messages.
    pub(crate) fn allows_recursion(&self, function: Function) -> bool {
        self.function(function)["RecursiveLoop"] == "Allow"
    }

    /// How long an asynchronous invocation is tried again while Lambda throttles it.
    pub(crate) fn max_event_age(&self, function: Function) -> Duration {
        let config = &self.function(function)["EventInvokeConfig"];
        let seconds = self.number(&config["MaximumEventAgeInSeconds"]).unwrap_or(6.0 * 3600.0);
        Duration::from_secs_f64(seconds)
    }

    /// The most batches of an event source that are in work at a time.
    pub(crate) fn maximum_concurrency(&self, source: Source) -> Option<u32> {
        let sources = self.function(source.function())["Events"].as_object().unwrap();
        let queue = format!("{}.Arn", source.logical_id());
        let mapping = sources.values().find(|it| it["Properties"]["Queue"] == queue.as_str());
        let mapping = &mapping.unwrap()["Properties"];
        assert_eq!(mapping["BatchSize"], 10, "the queue hands out ten messages at most");
        let maximum = self.number(&mapping["ScalingConfig"]["MaximumConcurrency"])?;
        maximum.to_string().parse().ok()
    }

    /// The throttles of the API's stage and routes.
    pub(crate) fn route_throttles(&self) -> RouteThrottles {
        let stage = &self.document["Resources"]["ApiStage"]["Properties"];
        let rate = |settings: &Value| Rate {
            per_second: self.number(&settings["ThrottlingRateLimit"]).unwrap(),
            burst: self.number(&settings["ThrottlingBurstLimit"]).unwrap(),
        };
        let routes = stage["RouteSettings"].as_object().into_iter().flatten();
        let routes = routes.map(|(route, settings)| (route.clone(), rate(settings)));
        RouteThrottles::new(rate(&stage["DefaultRouteSettings"]), &routes.collect())
    }

    fn function(&self, function: Function) -> &Value {
        let id = format!("{function:?}Function");
        let properties = &self.document["Resources"][&id]["Properties"];
        assert!(properties.is_object(), "the template has no {id}");
        properties
    }

    /// A number, or the parameter that a reference names.
    fn number(&self, value: &Value) -> Option<f64> {
        let Some(name) = value.as_str() else { return value.as_f64() };
        let chosen = self.parameters.get(name).copied().map(f64::from);
        let default = || self.document["Parameters"][name]["Default"].as_f64();
        Some(chosen.or_else(default).unwrap_or_else(|| panic!("{name} is no number")))
    }
}
