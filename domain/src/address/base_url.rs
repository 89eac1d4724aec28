//! The base URL of a provider's API, and the rules that it must meet.

use url::{Host, Url};

use super::AddressError;
use super::policy::TargetPolicy;
use super::target::{NameError, check_name};

/// Why a provider's API cannot be at a URL, read after the URL's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Neither https nor, on a developer's machine, http.
    #[error("is not https")]
    Scheme,
    /// A user name or a password before the host.
    #[error("has a user name or password; the provider's key belongs into its parameter")]
    UserInfo,
    /// A host that no DNS server could know.
    #[error("has a host that is not a valid DNS name")]
    HostName,
    /// A name that only means something on a private network.
    #[error(
        "has a host that is not a public, fully qualified DNS name; the parameter \
         PrivateProviderHosts of the stack can allow it"
    )]
    LocalName,
    /// A literal address that is not public.
    #[error("cannot be reached from the internet: {0}")]
    Address(AddressError),
}

/// Checks whether a provider's API may be at `url`. Any port may be used. A name must still be
/// resolved and [checked](TargetPolicy::vet_name) when connecting.
///
/// # Errors
/// The first rule that the URL does not meet.
pub fn check_base_url(url: &Url, policy: &TargetPolicy) -> Result<(), BaseUrlError> {
    match url.scheme() {
        "https" => {}
        "http" if policy.allows_plain_http() => {}
        _ => return Err(BaseUrlError::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BaseUrlError::UserInfo);
    }
    let literal = match url.host() {
        Some(Host::Domain(name)) => {
            return check_name(name, policy).map_err(|error| match error {
                NameError::Invalid => BaseUrlError::HostName,
                NameError::Local => BaseUrlError::LocalName,
            });
        }
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        None => return Err(BaseUrlError::HostName),
    };
    policy.vet_literal(literal).map(drop).map_err(BaseUrlError::Address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PrivateHosts;

    fn checked(url: &str, policy: &TargetPolicy) -> Result<(), BaseUrlError> {
        check_base_url(&Url::parse(url).unwrap(), policy)
    }

    #[test]
    fn base_url_is_public_https() {
        let public = TargetPolicy::public();
        for url in
            ["https://api.acme.example/v1", "https://api.acme.example.:8443", "https://1.1.1.1"]
        {
            assert_eq!(checked(url, &public), Ok(()), "{url}");
        }
        for (url, error) in [
            ("http://api.acme.example", BaseUrlError::Scheme),
            ("ftp://api.acme.example", BaseUrlError::Scheme),
            ("https://user@api.acme.example", BaseUrlError::UserInfo),
            ("https://:pass@api.acme.example", BaseUrlError::UserInfo),
            ("https://a..example", BaseUrlError::HostName),
            ("https://localhost", BaseUrlError::LocalName),
            ("https://render", BaseUrlError::LocalName),
            ("https://metadata.google.internal", BaseUrlError::LocalName),
        ] {
            assert_eq!(checked(url, &public), Err(error), "{url}");
        }
        for url in [
            "https://169.254.169.254",
            "https://0xa9fea9fe",
            "https://10.0.0.1",
            "https://[::1]",
            "https://[fd00:ec2::254]",
            "https://[::ffff:10.0.0.1]",
            "https://[64:ff9b::7f00:1]",
        ] {
            let refused = checked(url, &public);
            assert!(matches!(refused, Err(BaseUrlError::Address(_))), "{url}: {refused:?}");
        }
    }

    #[test]
    fn base_url_may_be_private_where_allowed() {
        let hosts = PrivateHosts::parse("render.corp.internal").unwrap();
        let policy = TargetPolicy::public().with_private_hosts(hosts);
        assert_eq!(checked("https://render.corp.internal/v1", &policy), Ok(()));
        assert_eq!(checked("http://render.corp.internal/v1", &policy), Err(BaseUrlError::Scheme));
        assert_eq!(
            checked("https://other.corp.internal/v1", &policy),
            Err(BaseUrlError::LocalName)
        );
        assert_eq!(checked("http://127.0.0.1:4010/zvid", &TargetPolicy::local_use()), Ok(()));
    }
}
