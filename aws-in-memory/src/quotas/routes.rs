//! The throttles of an HTTP API: one of the stage for all routes, but for those that have one of
//! their own.

use std::collections::BTreeMap;

use dynamodb_in_memory::bucket::TokenBucket;

use super::Rate;

/// The throttles of a stage.
#[derive(Debug)]
pub struct RouteThrottles {
    stage: TokenBucket,
    routes: BTreeMap<String, TokenBucket>,
}

impl RouteThrottles {
    /// Of a stage, and of the routes that have their own, by their keys.
    #[must_use]
    pub fn new(stage: Rate, routes: &BTreeMap<String, Rate>) -> Self {
        let routes = routes.iter().map(|(route, rate)| (route.clone(), rate.bucket()));
        Self { stage: stage.bucket(), routes: routes.collect() }
    }

    /// Whether a request of this route passes.
    pub fn admit(&mut self, route: &str) -> bool {
        self.routes.get_mut(route).unwrap_or(&mut self.stage).take(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn route_has_its_own_throttle() {
        let own = [("POST /own".to_owned(), Rate::per_second(2.0))].into();
        let mut throttles = RouteThrottles::new(Rate { per_second: 1.0, burst: 3.0 }, &own);
        let shared: Vec<bool> =
            ["GET /a", "GET /b", "GET /a", "GET /b"].map(|route| throttles.admit(route)).into();
        assert_eq!(shared, [true, true, true, false]);
        let own: Vec<bool> = (0..3).map(|_| throttles.admit("POST /own")).collect();
        assert_eq!(own, [true, true, false]);
    }
}
