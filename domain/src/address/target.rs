//! The URL of a receiver, and the rules that it must meet.

use std::fmt;

use url::{Host, Url};

use super::AddressError;
use super::policy::{LOCAL_SUFFIXES, ReceiverPorts, Scheme, TargetPolicy, is_dns_name};

/// Longest accepted receiver URL, in bytes, before and after normalisation.
const MAX_URL_BYTES: usize = 2048;

/// A URL that webhooks may be posted to, normalised.
///
/// A host name must still be resolved and [checked](TargetPolicy::vet_name) when connecting,
/// because its addresses may change. The policy may change too, so a stored URL is parsed again
/// when it is read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReceiverUrl(Url);

/// Why a URL cannot receive webhooks, as a sentence for its owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverUrlError {
    /// More than 2048 bytes.
    #[error("the receiver URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// Not an absolute URL at all.
    #[error("the receiver URL is not a valid absolute URL")]
    Malformed(#[source] url::ParseError),
    /// Neither https nor, where allowed, http.
    #[error("the receiver URL must start with https://")]
    Scheme,
    /// A user name or a password before the host.
    #[error(
        "the receiver URL must not contain a user name or password; verify the webhook's signature instead"
    )]
    UserInfo,
    /// Something after `#`, which is never sent.
    #[error("the receiver URL must not contain a fragment (the part after #)")]
    Fragment,
    /// A port the policy does not list.
    #[error("the receiver URL must not use port {port}; receivers may use {allowed}")]
    Port {
        /// The URL's port.
        port: u16,
        /// What its scheme may use.
        allowed: ReceiverPorts,
    },
    /// A host that no DNS server could know.
    #[error("the receiver URL's host is not a valid DNS name")]
    HostName,
    /// A name that only means something on a private network.
    #[error("the receiver URL's host must be a public, fully qualified DNS name")]
    LocalName,
    /// A literal address that is not public.
    #[error("the receiver URL cannot be reached from the internet: {0}")]
    Address(AddressError),
}

impl ReceiverUrl {
    /// Parses `text` as browsers do, so `https://0x7f.1/` is 127.0.0.1, and
    /// checks the result against `policy`.
    pub fn parse(text: &str, policy: &TargetPolicy) -> Result<Self, ReceiverUrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(ReceiverUrlError::TooLong);
        }
        let url = Self(Url::parse(text).map_err(ReceiverUrlError::Malformed)?);
        url.satisfies(policy)?;
        Ok(url)
    }

    /// Checks a URL that was parsed under another policy against this one.
    pub fn satisfies(&self, policy: &TargetPolicy) -> Result<(), ReceiverUrlError> {
        let url = &self.0;
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" if policy.allows_plain_http() => Scheme::Http,
            _ => return Err(ReceiverUrlError::Scheme),
        };
        // Punycode and percent encoding may have made it longer.
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(ReceiverUrlError::TooLong);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ReceiverUrlError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(ReceiverUrlError::Fragment);
        }
        if let (Some(allowed), Some(port)) = (policy.ports(scheme), url.port_or_known_default())
            && !allowed.contains(port)
        {
            return Err(ReceiverUrlError::Port { port, allowed });
        }
        let literal = match url.host() {
            Some(Host::Domain(name)) => {
                return check_name(name, policy).map_err(|error| match error {
                    NameError::Invalid => ReceiverUrlError::HostName,
                    NameError::Local => ReceiverUrlError::LocalName,
                });
            }
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            None => return Err(ReceiverUrlError::Malformed(url::ParseError::EmptyHost)),
        };
        policy.vet_literal(literal).map(drop).map_err(ReceiverUrlError::Address)
    }

    /// The normalised URL, for storing and showing.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ReceiverUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for ReceiverUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ReceiverUrl").field(&self.as_str()).finish()
    }
}

/// Why a name cannot be the host of a URL.
pub(super) enum NameError {
    /// No DNS server could know it.
    Invalid,
    /// It only means something on a private network.
    Local,
}

/// `url` allows more in a host than DNS, TLS and HTTP do; they must agree on it.
pub(super) fn check_name(name: &str, policy: &TargetPolicy) -> Result<(), NameError> {
    // A trailing dot makes a name absolute; it does not make it another name.
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_dns_name(name) {
        return Err(NameError::Invalid);
    }
    let is_below = |suffix: &&str| {
        name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_local = !name.contains('.') || LOCAL_SUFFIXES.iter().any(is_below);
    if is_local && !policy.allows_local_name(name) {
        return Err(NameError::Local);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
