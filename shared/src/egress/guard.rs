//! The only way to a receiver or provider: a connector that checks addresses when it dials.
//!
//! To check a name first and connect afterwards would resolve it twice, and the second result
//! can differ (DNS rebinding). Here the TCP connector gets the checked addresses. It dials a
//! literal address without a resolver, so literal addresses are checked before. TLS still
//! checks the certificate against the URL's host.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use domain::address::{AddressError, TargetPolicy};
use domain::attempt::AttemptError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::time::timeout;
use tower_service::Service;

use super::EgressLimits;
use super::client::find;
use super::dial::{Dial, Dialled, Dialler};

/// Resolves host names.
pub trait Resolve: Send + Sync {
    /// All addresses of `name`, best first. For a name that ends in a dot no search domain is
    /// tried.
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the machine the relay runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        }
        .boxed()
    }
}

/// Opens connections to allowed addresses only.
#[derive(Clone)]
pub(super) struct GuardedConnector {
    dialler: Dialler,
    policy: Arc<TargetPolicy>,
}

impl GuardedConnector {
    pub(super) fn new(
        resolver: Arc<dyn Resolve>,
        policy: Arc<TargetPolicy>,
        limits: &EgressLimits,
    ) -> Self {
        let budget = limits.dns;
        let resolver = VettingResolver { resolver, policy: Arc::clone(&policy), budget };
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(limits.connect));
        tcp.set_nodelay(true);
        Self::through(Arc::new(tcp), policy)
    }

    /// Dials through `dial`, which checks the addresses of names.
    pub(super) fn through(dial: Arc<dyn Dial>, policy: Arc<TargetPolicy>) -> Self {
        Self { dialler: Dialler(dial), policy }
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = Dialled;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Dialled, DialError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        self.dialler.poll_ready(cx).map_err(DialError)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if let Some(literal) = literal_host(&uri)
            && let Err(error) = self.policy.vet_literal(literal)
        {
            return async move { Err(DialError(LookupError::from(error).into())) }.boxed();
        }
        let dialling = self.dialler.call(uri);
        async move { dialling.await.map_err(DialError) }.boxed()
    }
}

/// The host, if `HttpConnector` would take it for a literal address.
pub(super) fn literal_host(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// A resolver that returns only addresses that may be dialled.
#[derive(Clone)]
struct VettingResolver {
    resolver: Arc<dyn Resolve>,
    policy: Arc<TargetPolicy>,
    budget: Duration,
}

impl Service<Name> for VettingResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = BoxFuture<'static, Result<Self::Response, LookupError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let mut complete = name.as_str().to_owned();
        // Without the dot, the search domains of resolv.conf are tried too.
        if !self.policy.allows_local_names() && !complete.ends_with('.') {
            complete.push('.');
        }
        let (answer, policy, budget) =
            (self.resolver.resolve(complete), Arc::clone(&self.policy), self.budget);
        async move {
            let answers = timeout(budget, answer).await.map_err(|_| LookupError::Slow)??;
            let vetted = policy.vet_name(name.as_str(), &answers)?;
            // The connector sets the URL's port.
            let dialable = vetted.as_slice().iter().map(|&ip| SocketAddr::new(ip, 0));
            Ok(dialable.collect::<Vec<_>>().into_iter())
        }
        .boxed()
    }
}

/// Why a name has no address that may be dialled.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("the name cannot be resolved")]
    Unresolved(#[from] io::Error),
    #[error("the resolver did not answer in time")]
    Slow,
    #[error("the address is refused")]
    Refused(#[from] AddressError),
}

impl LookupError {
    fn class(&self) -> AttemptError {
        match self {
            Self::Unresolved(_) | Self::Slow | Self::Refused(AddressError::NoAddress) => {
                AttemptError::Dns
            }
            Self::Refused(AddressError::Forbidden { .. }) => AttemptError::Blocked,
        }
    }
}

/// Why no TCP connection was opened.
#[derive(Debug, thiserror::Error)]
#[error("no connection")]
pub(super) struct DialError(#[source] Box<dyn Error + Send + Sync>);

impl DialError {
    pub(super) fn class(&self) -> AttemptError {
        find::<LookupError>(&*self.0).map_or(AttemptError::Connect, LookupError::class)
    }
}
