//! Resolution of every name to loopback.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::iter::{Once, once};
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// A connector that resolves every name to loopback.
pub(crate) fn connector() -> HttpConnector<LoopbackResolver> {
    let mut tcp = HttpConnector::new_with_resolver(LoopbackResolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

#[derive(Clone)]
pub(crate) struct LoopbackResolver;

impl Service<Name> for LoopbackResolver {
    type Response = Once<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Once<SocketAddr>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _name: Name) -> Self::Future {
        ready(Ok(once((Ipv4Addr::LOCALHOST, 0).into())))
    }
}
