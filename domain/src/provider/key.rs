//! A provider's API key, and the hosts that it may be sent to.
//!
//! A spec says where requests go, and an API key that may change a spec is not always trusted
//! with the provider's key. So the hosts are stored with the key, and only [`ProviderKey::for_url`]
//! gives it out: for one URL, if its host is among them.

use std::fmt;

use serde_json::{Value, json};
use url::{Host, Url};

use super::echo::EchoMask;
use crate::address::is_dns_name;

/// The most hosts of one key.
const MAX_HOSTS: usize = 20;

/// An API key and its hosts. `Debug` hides the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderKey {
    key: String,
    hosts: Vec<KeyHost>,
}

/// Why a text is not a stored key. It quotes nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderKeyError {
    /// The text is a bare key, or another document.
    #[error(
        "it must be {{\"key\": \"…\", \"hosts\": [\"api.example.com\"]}}, with the hosts that the \
         key may be sent to; `relay provider set-key` stores it so"
    )]
    Form,
    /// There is no key.
    #[error("`key` is empty")]
    NoKey,
    /// The key has a character that no header may have.
    #[error("`key` cannot go into a header")]
    Unsendable,
    /// The key could be sent nowhere.
    #[error("`hosts` is empty: the key could be sent nowhere")]
    NoHosts,
    /// More hosts than any provider has.
    #[error("`hosts` has more than {MAX_HOSTS} hosts")]
    TooManyHosts,
    /// A host is none.
    #[error("`hosts` has at place {place} what {reason}")]
    Host {
        /// Its place, counted from 1.
        place: usize,
        /// What is wrong with it.
        reason: KeyHostError,
    },
}

/// A host of a key: a name, an address, or `*.` and a name; with a port unless it is that of
/// https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHost {
    name: HostName,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostName {
    Exactly(Host),
    /// Every name below this one, at any depth; not the name itself.
    Below(String),
}

/// Why a text is not a host, read after "what".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyHostError {
    /// Not a host at all, or more than a host.
    #[error("is not a host; one is like api.example.com, *.example.com or 127.0.0.1:8080")]
    Malformed,
    /// All names below a top-level domain, or below an address.
    #[error("is too broad; name a host, or `*.` and the provider's own domain")]
    Broad,
}

/// A key that is for the host of a certain URL.
pub(super) struct KeyForUrl<'a>(&'a str);

/// The URL of a request has a host that the key is not for. The request is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider's key is not for the host {host}")]
pub struct KeyNotForHost {
    /// Host and, unless it is that of https, port.
    pub host: String,
}

impl ProviderKey {
    /// A key for these hosts.
    ///
    /// # Errors
    /// When the key cannot be sent, or could be sent nowhere.
    pub fn new(key: &str, hosts: Vec<KeyHost>) -> Result<Self, ProviderKeyError> {
        let key = key.trim();
        if key.is_empty() {
            return Err(ProviderKeyError::NoKey);
        }
        if !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(ProviderKeyError::Unsendable);
        }
        if hosts.is_empty() {
            return Err(ProviderKeyError::NoHosts);
        }
        if hosts.len() > MAX_HOSTS {
            return Err(ProviderKeyError::TooManyHosts);
        }
        Ok(Self { key: key.to_owned(), hosts })
    }

    /// Reads a stored key. The error of the JSON parser is dropped, because it quotes the text.
    ///
    /// # Errors
    /// When the text has another form than [`ProviderKey::reveal`] gives.
    pub fn parse(text: &str) -> Result<Self, ProviderKeyError> {
        let document: Value = serde_json::from_str(text).map_err(|_| ProviderKeyError::Form)?;
        let members = document.as_object().filter(|members| members.len() == 2);
        let member = |name| members.and_then(|members| members.get(name));
        let (Some(Value::String(key)), Some(Value::Array(hosts))) =
            (member("key"), member("hosts"))
        else {
            return Err(ProviderKeyError::Form);
        };
        let hosts = (1..).zip(hosts).map(|(place, host)| {
            let host = host.as_str().ok_or(KeyHostError::Malformed).and_then(KeyHost::parse);
            host.map_err(|reason| ProviderKeyError::Host { place, reason })
        });
        Self::new(key, hosts.collect::<Result<_, _>>()?)
    }

    /// The text to store.
    #[must_use]
    pub fn reveal(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(KeyHost::to_string).collect();
        json!({"key": self.key, "hosts": hosts}).to_string()
    }

    /// The hosts that the key is for.
    #[must_use]
    pub fn hosts(&self) -> &[KeyHost] {
        &self.hosts
    }

    /// What masks the key where the provider sends it back.
    #[must_use]
    pub fn echo_mask(&self) -> EchoMask {
        EchoMask::default().with_secret(&self.key)
    }

    /// The key, for a request to this URL.
    pub(super) fn for_url(&self, url: &Url) -> Result<KeyForUrl<'_>, KeyNotForHost> {
        let is_bare = url.username().is_empty() && url.password().is_none();
        if is_bare && self.hosts.iter().any(|host| host.is_of(url)) {
            return Ok(KeyForUrl(&self.key));
        }
        // As a key is stored for it, so that it can be copied.
        let host = KeyHost::of(url).map(|host| host.to_string());
        let host = host.unwrap_or_else(|| url.host_str().unwrap_or_default().to_owned());
        Err(KeyNotForHost { host })
    }
}

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderKey").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl KeyForUrl<'_> {
    pub(super) fn reveal(&self) -> &str {
        self.0
    }
}

impl KeyHost {
    /// Reads a host as URLs have it: in any case, with or without a trailing dot, and in Unicode
    /// or Punycode.
    ///
    /// # Errors
    /// When the text is not a host, is more than one, or stands for the hosts of many owners.
    pub fn parse(text: &str) -> Result<Self, KeyHostError> {
        let text = text.trim();
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // A URL's parser reads past some characters, and ends the host at others.
        let is_more = |c: char| "/\\?#@%*".contains(c) || c.is_whitespace() || c.is_control();
        if rest.contains(is_more) {
            return Err(KeyHostError::Malformed);
        }
        let url = Url::parse(&format!("https://{rest}")).map_err(|_| KeyHostError::Malformed)?;
        let port = url.port();
        if port == Some(0) {
            return Err(KeyHostError::Malformed);
        }
        let host = url.host().ok_or(KeyHostError::Malformed)?;
        let name = match (absolute(host.to_owned()), below) {
            (Host::Domain(name), _) if !is_dns_name(&name) => return Err(KeyHostError::Malformed),
            (Host::Domain(name), true) if !name.contains('.') => return Err(KeyHostError::Broad),
            (Host::Domain(name), true) => HostName::Below(name),
            (Host::Ipv4(_) | Host::Ipv6(_), true) => return Err(KeyHostError::Broad),
            (host @ (Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)), false) => {
                HostName::Exactly(host)
            }
        };
        Ok(Self { name, port })
    }

    /// The host of a URL; none of one that has no host, or one that is none for DNS.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        let port = match (url.scheme(), url.port()) {
            ("https", port) => port,
            (_, _) => url.port_or_known_default(),
        };
        let name = match absolute(url.host()?.to_owned()) {
            Host::Domain(name) if !is_dns_name(&name) => return None,
            host @ (Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_)) => HostName::Exactly(host),
        };
        Some(Self { name, port })
    }

    /// Whether this is the host of `url`. Without a port only https is meant.
    fn is_of(&self, url: &Url) -> bool {
        let is_port = match self.port {
            Some(port) => url.port_or_known_default() == Some(port),
            None => url.scheme() == "https" && url.port().is_none(),
        };
        let Some(host) = url.host().map(|host| absolute(host.to_owned())) else { return false };
        let is_name = match &self.name {
            HostName::Exactly(name) => *name == host,
            HostName::Below(zone) => match host {
                Host::Domain(name) => {
                    let rest = name.strip_suffix(zone.as_str());
                    rest.and_then(|rest| rest.strip_suffix('.')).is_some_and(is_dns_name)
                }
                Host::Ipv4(_) | Host::Ipv6(_) => false,
            },
        };
        is_port && is_name && matches!(url.scheme(), "https" | "http")
    }
}

impl fmt::Display for KeyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Exactly(host) => write!(f, "{host}")?,
            HostName::Below(zone) => write!(f, "*.{zone}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The host without the dot that makes a name absolute: it is no other name.
fn absolute(host: Host<impl AsRef<str>>) -> Host {
    match host {
        Host::Domain(name) => {
            let name = name.as_ref();
            Host::Domain(name.strip_suffix('.').unwrap_or(name).to_owned())
        }
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => Host::Ipv6(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hosts: &[&str]) -> ProviderKey {
        let hosts = hosts.iter().map(|host| KeyHost::parse(host).unwrap()).collect();
        ProviderKey::new("the-key", hosts).unwrap()
    }

    fn is_for(hosts: &[&str], url: &str) -> bool {
        key(hosts).for_url(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn key_goes_to_every_spelling_of_its_host() {
        for url in [
            "https://api.acme.example/v1/x?y=1",
            "https://API.Acme.Example/",
            "https://api.acme.example./",
            "https://api.acme.example:443/",
            "https://api%2Eacme.example/",
            "https://ａpi.acme.example/",
        ] {
            assert!(is_for(&["api.acme.example"], url), "{url}");
        }
        assert!(is_for(&["bücher.example"], "https://xn--bcher-kva.example/"));
        assert!(is_for(&["XN--BCHER-KVA.example."], "https://bücher.example/"));
        assert!(is_for(&["127.0.0.1:8080"], "http://127.0.0.1:8080/zvid"));
        assert!(is_for(&["127.0.0.1:8080"], "http://0x7f.1:8080/zvid"));
        assert!(is_for(&["[::1]:8080"], "http://[0:0::1]:8080/"));
        assert!(is_for(&["simulator:80"], "http://simulator/"));
        assert!(is_for(&["*.acme.example"], "https://eu.api.acme.example/"));
    }

    #[test]
    fn key_goes_to_no_other_host() {
        for url in [
            "https://evil.example/api.acme.example",
            "https://api.acme.example.evil.example/",
            "https://evil-api.acme.example/",
            "https://acme.example/",
            "https://eu.api.acme.example/",
            "https://api.acme.example@evil.example/",
            "https://evil.example@api.acme.example/",
            "https://:pass@api.acme.example/",
            "https://api.acme.example:8443/",
            "http://api.acme.example/",
            "http://api.acme.example:443/",
            "https://аpi.acme.example/",
            "https://api.acme.example../",
            "https://203.0.113.7/",
            "ftp://api.acme.example/",
            "data:api.acme.example",
        ] {
            assert!(!is_for(&["api.acme.example"], url), "{url}");
        }
        assert!(!is_for(&["*.acme.example"], "https://acme.example/"));
        assert!(!is_for(&["*.acme.example"], "https://evilacme.example/"));
        assert!(!is_for(&["*.acme.example"], "https://.acme.example/"));
        assert!(!is_for(&["127.0.0.1:8080"], "http://127.0.0.1/"));
        assert!(!is_for(&["127.0.0.1:8080"], "http://[::ffff:127.0.0.1]:8080/"));
    }

    #[test]
    fn refusal_names_the_host_alone() {
        let refused = |url: &str| {
            let url = Url::parse(url).unwrap();
            key(&["api.acme.example"]).for_url(&url).map(|_| ()).unwrap_err().to_string()
        };
        let text = refused("https://us%65r:pass@evil.example:8443/path?token=1#x");
        assert_eq!(text, "the provider's key is not for the host evil.example:8443");
        assert!(refused("http://evil.example/").ends_with(" the host evil.example:80"));
    }

    #[test]
    fn key_host_must_be_one_host() {
        use KeyHostError::{Broad, Malformed};
        for (text, reason) in [
            ("", Malformed),
            ("https://api.acme.example", Malformed),
            ("api.acme.example/v1", Malformed),
            ("user@api.acme.example", Malformed),
            ("api.acme.example, other.example", Malformed),
            ("api.acme.example:0", Malformed),
            ("api.acme.example:99999", Malformed),
            ("api.*.example", Malformed),
            ("a..example", Malformed),
            ("api acme", Malformed),
            ("*", Malformed),
            ("*.", Malformed),
            ("*.example", Broad),
            ("*.127.0.0.1", Broad),
        ] {
            assert_eq!(KeyHost::parse(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn stored_key_round_trips() {
        let key = key(&["api.acme.example", "*.cdn.acme.example", "127.0.0.1:8080", "[::1]:80"]);
        assert_eq!(ProviderKey::parse(&key.reveal()), Ok(key));
        let spaced = ProviderKey::parse(r#" {"hosts": ["A.example"], "key": " k\n"} "#).unwrap();
        assert_eq!(spaced.reveal(), r#"{"hosts":["a.example"],"key":"k"}"#);
    }

    /// A key may stand where it does not belong.
    #[test]
    fn malformed_key_is_never_quoted() {
        for text in [
            "sk_live_4242",
            "\"sk_live_4242\"",
            "4242",
            "[\"sk_live_4242\"]",
            r#"{"sk_live_4242": 1, "hosts": []}"#,
            r#"{"key": "sk_live_4242"}"#,
            r#"{"key": "sk_live_4242", "hosts": "a.example"}"#,
            r#"{"key": "k", "hosts": ["a.example"], "sk_live_4242": 1}"#,
            r#"{"key": "a.example", "hosts": ["sk live 4242"]}"#,
            r#"{"key": "k", "hosts": [4242]}"#,
            r#"{"key": "k", "hosts": []}"#,
            r#"{"key": " ", "hosts": ["a.example"]}"#,
            r#"{"key": "4242\n4242", "hosts": ["a.example"]}"#,
            r#"{"key": "schlüssel4242", "hosts": ["a.example"]}"#,
            "",
        ] {
            let error = ProviderKey::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("4242"), "{text}: {error}");
        }
        assert!(!format!("{:?}", key(&["a.example"])).contains("the-key"));
    }
}
