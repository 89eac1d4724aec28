//! Which receivers and providers the operator of a stack allows, beyond https on the public
//! internet.
//!
//! Only the operator can allow more, when the stack is deployed, and only private networks.
//! Loopback, link-local metadata services and addresses that are not hosts stay refused: on a
//! function's loopback is the runtime API, which is never a receiver.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Host;

use super::{AddressError, SpecialRange, VettedAddresses, v4, v6, vet_except};

/// Name suffixes that resolve, if at all, to a host on a local network.
pub(super) const LOCAL_SUFFIXES: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Which receivers or providers may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPolicy {
    plain_http: bool,
    local_names: bool,
    ports: Option<ReceiverPorts>,
    exempt: Vec<IpNet>,
    private_networks: PrivateNetworks,
    private_hosts: PrivateHosts,
}

impl Default for TargetPolicy {
    fn default() -> Self {
        Self::public()
    }
}

impl TargetPolicy {
    /// The default policy of a deployed stack: https, port 443, public addresses.
    pub fn public() -> Self {
        Self {
            plain_http: false,
            local_names: false,
            ports: Some(ReceiverPorts::default()),
            exempt: Vec::new(),
            private_networks: PrivateNetworks::default(),
            private_hosts: PrivateHosts::default(),
        }
    }

    /// The policy of a stack on a developer's machine: http or https, any port, any address.
    pub fn local_use() -> Self {
        Self {
            plain_http: true,
            local_names: true,
            ports: None,
            exempt: vec![
                Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
                Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
            ],
            ..Self::public()
        }
    }

    /// Allows these ports instead of 443.
    #[must_use]
    pub fn with_ports(self, ports: ReceiverPorts) -> Self {
        Self { ports: Some(ports), ..self }
    }

    /// Also allows http, on port 80 and on the other listed ports except 443.
    #[must_use]
    pub fn with_plain_http(self) -> Self {
        Self { plain_http: true, ..self }
    }

    /// Also allows addresses in these private networks.
    #[must_use]
    pub fn with_private_networks(self, private_networks: PrivateNetworks) -> Self {
        Self { private_networks, ..self }
    }

    /// Also allows private addresses for these names.
    #[must_use]
    pub fn with_private_hosts(self, private_hosts: PrivateHosts) -> Self {
        Self { private_hosts, ..self }
    }

    /// Also treats these networks as public, without any check: for tests with receivers on this
    /// machine.
    #[must_use]
    pub fn with_networks(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.exempt.extend(networks);
        self
    }

    /// Accepts a resolver's `answers` for `name` when there is at least one and all are allowed.
    ///
    /// # Errors
    /// When there is no answer, or one must not be dialled.
    pub fn vet_name(
        &self,
        name: &str,
        answers: &[IpAddr],
    ) -> Result<VettedAddresses, AddressError> {
        let listed = self.private_hosts.contains(name);
        vet_except(answers, |address, range| self.opens(address, range, listed))
    }

    /// Accepts a literal address in a URL.
    ///
    /// # Errors
    /// When it must not be dialled.
    pub fn vet_literal(&self, address: IpAddr) -> Result<VettedAddresses, AddressError> {
        vet_except(&[address], |address, range| self.opens(address, range, false))
    }

    /// Whether a name without a domain, or with a suffix such as `.local`, may be a receiver.
    /// Otherwise names must be fully qualified.
    pub fn allows_local_names(&self) -> bool {
        self.local_names
    }

    /// Whether `name` is allowed although it resolves on a local network only.
    pub(super) fn allows_local_name(&self, name: &str) -> bool {
        self.local_names || self.private_hosts.contains(name)
    }

    pub(super) fn allows_plain_http(&self) -> bool {
        self.plain_http
    }

    /// The ports that a scheme may use; none when all are allowed.
    pub(super) fn ports(&self, scheme: Scheme) -> Option<ReceiverPorts> {
        let listed = self.ports.as_ref()?;
        Some(match scheme {
            Scheme::Https => listed.clone(),
            Scheme::Http => listed.of_plain_http(),
        })
    }

    /// Whether `address`, with IPv4 in plain form, may be dialled although it is in `range`.
    fn opens(&self, address: IpAddr, range: SpecialRange, name_is_listed: bool) -> bool {
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return true;
        }
        match range {
            SpecialRange::Private => name_is_listed || self.private_networks.contains(address),
            // Of these only 198.18.0.0/15, which clouds hand out as private addresses.
            SpecialRange::Documentation => self.private_networks.contains(address),
            SpecialRange::Unspecified
            | SpecialRange::Loopback
            | SpecialRange::LinkLocal
            | SpecialRange::Multicast
            | SpecialRange::Tunnel
            | SpecialRange::Reserved => false,
        }
    }
}

/// The schemes of receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
}

/// The ports that receivers may listen on. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverPorts(BTreeSet<u16>);

/// Why a text is not a list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port; a list is like 443,8443")]
pub struct PortsError(String);

impl ReceiverPorts {
    /// Reads ports (1 to 65535) separated by commas.
    ///
    /// # Errors
    /// When an entry is not a port. An empty text has one empty entry, so it is refused too.
    pub fn parse(text: &str) -> Result<Self, PortsError> {
        let ports = parts(text).map(|part| match part.parse() {
            Ok(port) if port > 0 && is_digits(part) => Ok(port),
            Ok(_) | Err(_) => Err(PortsError(part.to_owned())),
        });
        ports.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// Port 80 is allowed too, and 443 is not, because plain text to the port of TLS is always a
    /// mistake.
    fn of_plain_http(&self) -> Self {
        Self(self.0.iter().copied().filter(|&port| port != 443).chain([80]).collect())
    }
}

impl Default for ReceiverPorts {
    fn default() -> Self {
        Self(BTreeSet::from([443]))
    }
}

impl fmt::Display for ReceiverPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&ports.join(", "))
    }
}

/// Private networks that receivers may be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateNetworks(Vec<IpNet>);

/// Why a text is not a list of private networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworksError {
    /// An entry is not an address, a slash and a prefix length.
    #[error("`{0}` is not a network; one is like 10.20.0.0/16")]
    Malformed(String),
    /// Host bits are set, so it is unclear which network is meant.
    #[error("`{given}` names a host within its network; the network is {network}")]
    HostBits {
        /// The entry.
        given: String,
        /// The network without the host bits.
        network: IpNet,
    },
    /// The network is not within a private range.
    #[error("{0} is not within the private ranges {ranges}", ranges = ranges())]
    NotPrivate(IpNet),
}

impl PrivateNetworks {
    /// Reads networks separated by commas; an empty text means none. Each must lie within a
    /// private range (RFC 1918, 4193, 6598, and that of RFC 2544, which clouds assign too), so
    /// that no list can allow loopback or a metadata service.
    ///
    /// # Errors
    /// When an entry is not such a network.
    pub fn parse(text: &str) -> Result<Self, NetworksError> {
        let networks = parts(text).filter(|_| !text.is_empty()).map(|part| {
            let network: IpNet =
                part.parse().map_err(|_| NetworksError::Malformed(part.to_owned()))?;
            if network != network.trunc() {
                let (given, network) = (part.to_owned(), network.trunc());
                return Err(NetworksError::HostBits { given, network });
            }
            match PRIVATE_RANGES.iter().any(|range| range.contains(&network)) {
                true => Ok(network),
                false => Err(NetworksError::NotPrivate(network)),
            }
        });
        networks.collect::<Result<_, _>>().map(Self)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The ranges within which networks can be allowed.
const PRIVATE_RANGES: [IpNet; 6] = [
    IpNet::V4(v4([10, 0, 0, 0], 8)),
    IpNet::V4(v4([100, 64, 0, 0], 10)),
    IpNet::V4(v4([172, 16, 0, 0], 12)),
    IpNet::V4(v4([192, 168, 0, 0], 16)),
    IpNet::V4(v4([198, 18, 0, 0], 15)),
    IpNet::V6(v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7)),
];

fn ranges() -> String {
    PRIVATE_RANGES.map(|range| range.to_string()).join(", ")
}

/// Names of receivers or providers whose addresses may be private.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateHosts(Vec<HostPattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Exactly(String),
    /// Every name below this one, at any depth; not the name itself.
    Below(String),
}

/// Why a text is not a list of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// An entry is neither a name nor `*.` and a name.
    #[error("`{0}` is not a host name; one is like hooks.example.com or *.example.com")]
    Malformed(String),
    /// An entry is an address, which belongs into the list of networks.
    #[error("`{0}` is an address; allow its network instead")]
    Address(String),
    /// An entry is a name without a domain, or all names below a top-level domain.
    #[error("`{0}` is not specific enough; name a host below a domain of your own")]
    Broad(String),
}

impl PrivateHosts {
    /// Reads host names separated by commas, each a name or `*.` and a name for everything
    /// below it; an empty text means none.
    ///
    /// # Errors
    /// When an entry is not such a name.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        let hosts = parts(text).filter(|_| !text.is_empty()).map(|part| {
            let malformed = || HostsError::Malformed(part.to_owned());
            let (below, name) = match part.strip_prefix("*.") {
                Some(name) => (true, name),
                None => (false, part),
            };
            let name = match Host::parse(name).map_err(|_| malformed())? {
                Host::Domain(name) if is_dns_name(&name) => name,
                Host::Domain(_) => return Err(malformed()),
                Host::Ipv4(_) | Host::Ipv6(_) => return Err(HostsError::Address(part.to_owned())),
            };
            // A whole private zone such as `*.internal` has one owner; `*.com` has not.
            let is_own_zone = below && LOCAL_SUFFIXES.contains(&name.as_str());
            if !name.contains('.') && !is_own_zone {
                return Err(HostsError::Broad(part.to_owned()));
            }
            Ok(if below { HostPattern::Below(name) } else { HostPattern::Exactly(name) })
        });
        hosts.collect::<Result<_, _>>().map(Self)
    }

    /// Whether `name`, as URLs and resolvers write it, is among them.
    fn contains(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.iter().any(|pattern| match pattern {
            HostPattern::Exactly(host) => name == host,
            HostPattern::Below(zone) => {
                name.strip_suffix(zone.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        })
    }
}

/// Whether `name` is a valid host name for DNS, TLS and HTTP, which is stricter than the `url`
/// crate. A trailing dot is not part of the name.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// Digits only, because `parse` of a number also accepts a sign.
fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
