//! Where a customer may have webhooks sent: the URL, and the rules it must meet.

use std::fmt;

use url::{Host, Url};

use super::AddressError;
use super::policy::{LOCAL_SUFFIXES, ReceiverPorts, Scheme, TargetPolicy, is_dns_name};

/// Longest accepted receiver URL, in bytes, before and after normalisation.
const MAX_URL_BYTES: usize = 2048;

/// A URL that webhooks may be posted to, normalised.
///
/// Its host, if a name, still has to be resolved and [vetted](TargetPolicy::vet_name)
/// at the moment of connecting: names move. For the same reason a stored URL is
/// parsed again when read, under the policy of that day.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReceiverUrl(Url);

/// Why a URL cannot receive webhooks, as a sentence for whoever gave it.
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
    /// holds the result against `policy`.
    pub fn parse(text: &str, policy: &TargetPolicy) -> Result<Self, ReceiverUrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(ReceiverUrlError::TooLong);
        }
        let url = Self(Url::parse(text).map_err(ReceiverUrlError::Malformed)?);
        url.satisfies(policy)?;
        Ok(url)
    }

    /// Holds a URL that was parsed under another policy against this one.
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
            Some(Host::Domain(name)) => return check_name(name, policy),
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            None => return Err(ReceiverUrlError::Malformed(url::ParseError::EmptyHost)),
        };
        policy.vet_literal(literal).map(drop).map_err(ReceiverUrlError::Address)
    }

    /// The normalised URL, the form to store and to show.
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

/// `url` allows more in a host than DNS, TLS and HTTP do; they must agree on it.
fn check_name(name: &str, policy: &TargetPolicy) -> Result<(), ReceiverUrlError> {
    // A trailing dot makes a name absolute; it does not make it another name.
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_dns_name(name) {
        return Err(ReceiverUrlError::HostName);
    }
    let is_below = |suffix: &&str| {
        name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_local = !name.contains('.') || LOCAL_SUFFIXES.iter().any(is_below);
    if is_local && !policy.allows_local_name(name) {
        return Err(ReceiverUrlError::LocalName);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::cases;
    use super::*;

    /// Lenient about the port, so that the address is what decides.
    fn any_port() -> TargetPolicy {
        TargetPolicy::public().with_ports(ReceiverPorts::parse("443,9876,9854").unwrap())
    }

    #[test]
    fn literal_addresses_are_judged_in_every_spelling() {
        for text in cases().urls.refused {
            let error = ReceiverUrl::parse(&text, &any_port());
            assert!(matches!(error, Err(ReceiverUrlError::Address(_))), "{text}: {error:?}");
        }
        for text in cases().urls.with_credentials {
            let error = ReceiverUrl::parse(&text, &TargetPolicy::local_use());
            assert_eq!(error, Err(ReceiverUrlError::UserInfo), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_url_does_not_parse() {
        for text in cases().urls.not_urls {
            let error = ReceiverUrl::parse(&text, &TargetPolicy::local_use());
            assert!(matches!(error, Err(ReceiverUrlError::Malformed(_))), "{text}: {error:?}");
        }
    }

    /// No resolver is asked for a name that DNS cannot carry, whatever the policy.
    #[test]
    fn a_host_longer_than_dns_allows_is_no_receiver() {
        for (length, fits) in [(253, true), (254, false), (256, false), (300, false)] {
            let filling = length - ".example".len();
            let name = format!("{}.example", "a".repeat(60) + &".a".repeat((filling - 60) / 2));
            let name = if name.len() < length { format!("a{name}") } else { name };
            assert_eq!(name.len(), length);
            for policy in [TargetPolicy::public(), TargetPolicy::local_use()] {
                let parsed = ReceiverUrl::parse(&format!("https://{name}/"), &policy);
                assert_eq!(parsed.is_ok(), fits, "{length}: {parsed:?}");
            }
        }
    }

    #[test]
    fn refusals_say_what_to_change() {
        let long = format!("https://example.com/{}", "x".repeat(2048));
        let grows = format!("https://example.com/{}", "ü".repeat(1000));
        let long_name = format!("https://{}com/", "a.".repeat(130));
        let told = [
            "http://example.com/",
            "ftp://example.com/",
            "mailto:a@example.com",
            "https://1:2@[::1]:9876",
            "https://user@example.com/",
            "https://:secret@example.com/",
            "https://example.com/#now",
            "https://example.com:8443/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://relay.localhost/",
            "https://printer.local/",
            "https://metadata.google.internal/",
            "https://intranet/",
            "https://exa$mple.com/",
            "https://example..com/",
            &long_name,
            &long,
            &grows,
            "https://10.0.0.1/",
        ]
        .map(|text| {
            let error = ReceiverUrl::parse(text, &TargetPolicy::public()).unwrap_err();
            format!("{text:32.32} {error}")
        });
        insta::assert_snapshot!(told.join("\n"), @r"
        http://example.com/              the receiver URL must start with https://
        ftp://example.com/               the receiver URL must start with https://
        mailto:a@example.com             the receiver URL must start with https://
        https://1:2@[::1]:9876           the receiver URL must not contain a user name or password; verify the webhook's signature instead
        https://user@example.com/        the receiver URL must not contain a user name or password; verify the webhook's signature instead
        https://:secret@example.com/     the receiver URL must not contain a user name or password; verify the webhook's signature instead
        https://example.com/#now         the receiver URL must not contain a fragment (the part after #)
        https://example.com:8443/        the receiver URL must not use port 8443; receivers may use 443
        https://localhost/               the receiver URL's host must be a public, fully qualified DNS name
        https://LOCALHOST./              the receiver URL's host must be a public, fully qualified DNS name
        https://relay.localhost/         the receiver URL's host must be a public, fully qualified DNS name
        https://printer.local/           the receiver URL's host must be a public, fully qualified DNS name
        https://metadata.google.internal the receiver URL's host must be a public, fully qualified DNS name
        https://intranet/                the receiver URL's host must be a public, fully qualified DNS name
        https://exa$mple.com/            the receiver URL's host is not a valid DNS name
        https://example..com/            the receiver URL's host is not a valid DNS name
        https://a.a.a.a.a.a.a.a.a.a.a.a. the receiver URL's host is not a valid DNS name
        https://example.com/xxxxxxxxxxxx the receiver URL is longer than 2048 bytes
        https://example.com/üüüüüüüüüüüü the receiver URL is longer than 2048 bytes
        https://10.0.0.1/                the receiver URL cannot be reached from the internet: the host's address 10.0.0.1 is a private network's address
        ");
    }

    #[test]
    fn public_receivers_are_kept_as_normalised() {
        for (text, kept) in [
            ("https://example.com/hook?a=1", "https://example.com/hook?a=1"),
            ("HTTPS://Example.COM:443", "https://example.com/"),
            ("https://bücher.example/a b", "https://xn--bcher-kva.example/a%20b"),
            ("https://localhost.example.com/", "https://localhost.example.com/"),
            ("https://nonlocal.example/", "https://nonlocal.example/"),
            ("https://1.1.1.1/", "https://1.1.1.1/"),
            ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"),
            ("https://my_host.example.com./", "https://my_host.example.com./"),
        ] {
            let url = ReceiverUrl::parse(text, &TargetPolicy::public()).unwrap();
            assert_eq!(url.as_str(), kept);
        }
    }

    #[test]
    fn local_use_takes_what_a_developer_has() {
        for text in [
            "http://127.0.0.1:8080/receiver/a",
            "http://localhost:3000/",
            "https://[::1]:9876/",
            "http://host.docker.internal/",
            "http://10.1.2.3/",
        ] {
            let url = ReceiverUrl::parse(text, &TargetPolicy::local_use()).unwrap();
            assert!(
                url.satisfies(&TargetPolicy::public()).is_err(),
                "{text} is for local use only"
            );
        }
    }

    proptest! {
        #[test]
        fn what_was_accepted_is_accepted_again_unchanged(
            text in "https?://[a-z0-9.:@#\\[\\]%ü-]{0,40}(/\\PC{0,20})?"
        ) {
            for policy in [TargetPolicy::public(), TargetPolicy::local_use()] {
                if let Ok(url) = ReceiverUrl::parse(&text, &policy) {
                    prop_assert_eq!(ReceiverUrl::parse(url.as_str(), &policy), Ok(url));
                }
            }
        }
    }
}
