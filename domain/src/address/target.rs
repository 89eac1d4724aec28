//! Where a customer may have webhooks sent: the URL, and the rules it must meet.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use super::{AddressError, VettedAddresses, vet_except};

/// Longest accepted receiver URL, in bytes, before and after normalisation.
const MAX_URL_BYTES: usize = 2048;

/// Name suffixes that resolve, if at all, to something near us.
const LOCAL_SUFFIXES: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// What the operator of a stack lets receivers be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPolicy {
    plain_http: bool,
    local_names: bool,
    ports: Ports,
    exempt: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ports {
    Any,
    Only(BTreeSet<u16>),
}

impl TargetPolicy {
    /// The rule for every deployed stack: https, port 443, public addresses.
    pub fn public() -> Self {
        Self {
            plain_http: false,
            local_names: false,
            ports: Ports::Only(BTreeSet::from([443])),
            exempt: Vec::new(),
        }
    }

    /// For a stack on a developer's machine: http too, any port, any address.
    pub fn local_use() -> Self {
        Self {
            plain_http: true,
            local_names: true,
            ports: Ports::Any,
            exempt: vec![
                Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
                Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
            ],
        }
    }

    /// Also lets receivers listen on these ports.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        if let Ports::Only(allowed) = &mut self.ports {
            allowed.extend(ports);
        }
        self
    }

    /// Also lets receivers live in these networks, public or not.
    #[must_use]
    pub fn with_networks(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.exempt.extend(networks);
        self
    }

    /// Accepts a resolver's `answers` as [`vet`](super::vet) does, the policy's
    /// own networks excepted.
    pub fn vet(&self, answers: &[IpAddr]) -> Result<VettedAddresses, AddressError> {
        vet_except(answers, |address| self.exempt.iter().any(|net| net.contains(&address)))
    }

    /// Whether a name without a domain, or below `.local` and the like, is a
    /// receiver. Where it is not, names are meant to be fully qualified.
    pub fn allows_local_names(&self) -> bool {
        self.local_names
    }
}

/// A URL that webhooks may be posted to, normalised.
///
/// Its host, if a name, still has to be resolved and [vetted](TargetPolicy::vet)
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
    #[error("the receiver URL must not use port {0}; leave the port out to use 443")]
    Port(u16),
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
        match url.scheme() {
            "https" => {}
            "http" if policy.plain_http => {}
            _ => return Err(ReceiverUrlError::Scheme),
        }
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
        match (&policy.ports, url.port_or_known_default()) {
            (Ports::Only(allowed), Some(port)) if !allowed.contains(&port) => {
                return Err(ReceiverUrlError::Port(port));
            }
            _ => {}
        }
        let literal = match url.host() {
            Some(Host::Domain(name)) => return check_name(name, policy),
            Some(Host::Ipv4(ip)) => ip.into(),
            Some(Host::Ipv6(ip)) => ip.into(),
            None => return Err(ReceiverUrlError::Malformed(url::ParseError::EmptyHost)),
        };
        policy.vet(&[literal]).map(|_| ()).map_err(ReceiverUrlError::Address)
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
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(ReceiverUrlError::HostName);
    }
    let is_below = |suffix: &&str| {
        name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let is_local = !name.contains('.') || LOCAL_SUFFIXES.iter().any(is_below);
    if is_local && !policy.local_names {
        return Err(ReceiverUrlError::LocalName);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lenient about the port, so that the address is what decides.
    fn port_9876() -> TargetPolicy {
        TargetPolicy::public().with_ports([9876, 9854])
    }

    #[test]
    fn literal_addresses_are_judged_in_every_spelling() {
        for text in [
            "https://[::1]:9876",
            "https://@[::1]:9876",
            "https://[0000:0000:0000:0000:0000:ffff:7f00:0001]:9854",
            "https://127.0.0.1/hook",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://127.0.0.1./",
            "https://①②⑦.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00:ec2::254]/",
            "https://[::ffff:a9fe:a9fe]/",
        ] {
            let error = ReceiverUrl::parse(text, &port_9876());
            assert!(matches!(error, Err(ReceiverUrlError::Address(_))), "{text}: {error:?}");
        }
    }

    #[test]
    fn what_is_not_a_url_does_not_parse() {
        for text in [
            "https://[127.0.0.1]",
            "https://[::1%lo]",
            "https://::1",
            "https://",
            "https://999.999.999.999/",
            "//example.com/hook",
            "/hook",
            "",
        ] {
            let error = ReceiverUrl::parse(text, &TargetPolicy::local_use());
            assert!(matches!(error, Err(ReceiverUrlError::Malformed(_))), "{text}: {error:?}");
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
        https://example.com:8443/        the receiver URL must not use port 8443; leave the port out to use 443
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

    #[test]
    fn a_policy_can_open_a_network_and_nothing_beside_it() {
        let policy = TargetPolicy::public().with_networks(["10.1.0.0/16".parse().unwrap()]);
        assert!(ReceiverUrl::parse("https://10.1.2.3/", &policy).is_ok());
        assert!(ReceiverUrl::parse("https://10.2.0.1/", &policy).is_err());
        assert!(policy.vet(&["10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap()]).is_err());
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
