//! What the operator of a stack lets receivers be, beyond https on the public internet.
//!
//! Opening something is always the operator's word, given when the stack is deployed, and
//! it opens private networks only. This machine, the link's metadata services and
//! everything that is no host stay closed: a function's loopback is the runtime that hands
//! it its events, and nobody's receiver.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Host;

use super::{AddressError, SpecialRange, VettedAddresses, v4, v6, vet_except};

/// Name suffixes that resolve, if at all, to something near us.
pub(super) const LOCAL_SUFFIXES: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// Which receivers may be posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPolicy {
    plain_http: bool,
    local_names: bool,
    ports: Option<ReceiverPorts>,
    exempt: Vec<IpNet>,
    private_networks: PrivateNetworks,
    private_hosts: PrivateHosts,
}

impl TargetPolicy {
    /// The rule for every deployed stack that says nothing else: https, port 443, public
    /// addresses.
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

    /// For a stack on a developer's machine: http too, any port, any address.
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

    /// Lets receivers listen on these ports, instead of 443.
    #[must_use]
    pub fn with_ports(self, ports: ReceiverPorts) -> Self {
        Self { ports: Some(ports), ..self }
    }

    /// Also lets receivers be http: on port 80 and on the other listed ports, 443 excepted.
    #[must_use]
    pub fn with_plain_http(self) -> Self {
        Self { plain_http: true, ..self }
    }

    /// Also lets receivers live in these private networks.
    #[must_use]
    pub fn with_private_networks(self, private_networks: PrivateNetworks) -> Self {
        Self { private_networks, ..self }
    }

    /// Also lets receivers of these names have private addresses.
    #[must_use]
    pub fn with_private_hosts(self, private_hosts: PrivateHosts) -> Self {
        Self { private_hosts, ..self }
    }

    /// Also takes these networks as public, whatever they are: for receivers on this very
    /// machine.
    #[must_use]
    pub fn with_networks(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.exempt.extend(networks);
        self
    }

    /// Accepts a resolver's `answers` for `name` when there are any and all of them may be
    /// dialled.
    ///
    /// # Errors
    /// When there is none, or one may not be dialled.
    pub fn vet_name(
        &self,
        name: &str,
        answers: &[IpAddr],
    ) -> Result<VettedAddresses, AddressError> {
        let listed = self.private_hosts.contains(name);
        vet_except(answers, |address, range| self.opens(address, range, listed))
    }

    /// Accepts an address that stands in a URL.
    ///
    /// # Errors
    /// When it may not be dialled.
    pub fn vet_literal(&self, address: IpAddr) -> Result<VettedAddresses, AddressError> {
        vet_except(&[address], |address, range| self.opens(address, range, false))
    }

    /// Whether a name without a domain, or below `.local` and the like, is a
    /// receiver. Where it is not, names are meant to be fully qualified.
    pub fn allows_local_names(&self) -> bool {
        self.local_names
    }

    /// Whether `name` may stand in a URL although it only means something nearby.
    pub(super) fn allows_local_name(&self, name: &str) -> bool {
        self.local_names || self.private_hosts.contains(name)
    }

    pub(super) fn allows_plain_http(&self) -> bool {
        self.plain_http
    }

    /// The ports that a scheme may use, when not every one will do.
    pub(super) fn ports(&self, scheme: Scheme) -> Option<ReceiverPorts> {
        let listed = self.ports.as_ref()?;
        Some(match scheme {
            Scheme::Https => listed.clone(),
            Scheme::Http => listed.of_plain_http(),
        })
    }

    /// Whether `address`, an IPv4 address in plain form, may be dialled although it is in
    /// `range`.
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

/// How a receiver is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
}

/// The ports that receivers may listen on. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverPorts(BTreeSet<u16>);

/// Why a text is no list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port; a list is like 443,8443")]
pub struct PortsError(String);

impl ReceiverPorts {
    /// Reads ports (1 to 65535) separated by commas.
    ///
    /// # Errors
    /// When a part is no port, which an empty text is not either.
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

    /// 80 too; and not 443, because plain text sent to the port of TLS is a mistake,
    /// whoever made it.
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

/// Networks of one's own that receivers may live in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateNetworks(Vec<IpNet>);

/// Why a text is no list of private networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworksError {
    /// Not an address, a slash and a prefix length.
    #[error("`{0}` is not a network; one is like 10.20.0.0/16")]
    Malformed(String),
    /// Bits of a host are set: more is meant, or less.
    #[error("`{given}` names a host within its network; the network is {network}")]
    HostBits {
        /// What was given.
        given: String,
        /// The network that it is in.
        network: IpNet,
    },
    /// Not, or not only, addresses that a private network may have.
    #[error("{0} is not within the private ranges {ranges}", ranges = ranges())]
    NotPrivate(IpNet),
}

impl PrivateNetworks {
    /// Reads networks separated by commas; none of an empty text. Each must lie within a
    /// range that private networks have (RFC 1918, 4193, 6598, and RFC 2544's, which clouds
    /// hand out too), so that no list opens this machine or a metadata service.
    ///
    /// # Errors
    /// When a part is no such network.
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

/// What can be opened at all.
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

/// Names of receivers whose addresses may be private.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateHosts(Vec<HostPattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Exactly(String),
    /// Every name below this one, at any depth; not the name itself.
    Below(String),
}

/// Why a text is no list of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// Neither a name nor `*.` and a name.
    #[error("`{0}` is not a host name; one is like hooks.example.com or *.example.com")]
    Malformed(String),
    /// An address, which is a network's business.
    #[error("`{0}` is an address; allow its network instead")]
    Address(String),
    /// A name without a domain, or all names below a top-level domain.
    #[error("`{0}` is not specific enough; name a host below a domain of your own")]
    Broad(String),
}

impl PrivateHosts {
    /// Reads host names separated by commas, each a name or `*.` and a name for everything
    /// below it; none of an empty text.
    ///
    /// # Errors
    /// When a part is no such name.
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
            // Whole zones such as `*.internal` are somebody's own; `*.com` is nobody's.
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

/// Whether DNS, TLS and HTTP all know `name` as a host's: `url` lets more pass. A trailing
/// dot is not part of it.
pub(super) fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// `parse` of a number takes a sign as well.
fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
