//! Which addresses the relay may connect to.
//!
//! Customers choose where their webhooks go, and specs where providers are; the relay runs inside an account
//! whose services trust each other (SSRF). So no address is dialled unless [`judge`]
//! finds every address of the name public. One other answer refuses the name,
//! because a resolver that mixes public and private answers is broken or hostile.
//! The checked set itself is dialled, never the result of a second lookup.
//!
//! The ranges are IANA's special-purpose registries, plus every way to write an
//! IPv4 address inside an IPv6 one.

mod base_url;
mod policy;
mod target;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

pub use base_url::{BaseUrlError, check_base_url};
pub(crate) use policy::is_dns_name;
pub use policy::{
    HostsError, NetworksError, PortsError, PrivateHosts, PrivateNetworks, ReceiverPorts,
    TargetPolicy,
};
pub use target::{ReceiverUrl, ReceiverUrlError};

/// The result of [`judge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressVerdict {
    /// The address may belong to a host on the public internet.
    Public,
    /// The address is never dialled for a customer.
    Forbidden(SpecialRange),
}

/// Why an address is not a public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialRange {
    /// The sender itself, or no host at all.
    Unspecified,
    /// This machine (loopback).
    Loopback,
    /// A private network, carrier-grade NAT and unique local addresses included.
    Private,
    /// Link-local; the address of cloud metadata services.
    LinkLocal,
    /// Multicast or broadcast.
    Multicast,
    /// Documentation and benchmarks.
    Documentation,
    /// An IPv4 address inside an IPv6 one, or a tunnel whose far end is unknown.
    Tunnel,
    /// Reserved for protocols or for future use.
    Reserved,
}

impl fmt::Display for SpecialRange {
    /// Reads after "is": `a loopback address`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private network's address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Documentation => "an address for documentation or benchmarks",
            Self::Tunnel => "a tunnelled or translated address",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Decides whether `ip` belongs to the public internet.
pub fn judge(ip: IpAddr) -> AddressVerdict {
    match plain(ip) {
        IpAddr::V4(ip) => judge_v4(ip),
        IpAddr::V6(ip) => judge_v6(ip),
    }
}

/// A non-empty set of addresses that may be dialled, in the resolver's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VettedAddresses(Vec<IpAddr>);

impl VettedAddresses {
    /// The addresses, at least one.
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.0
    }
}

/// Why a name's addresses must not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The resolver knew the name but no address for it.
    #[error("the host name has no address")]
    NoAddress,
    /// At least this one is not public; the others are refused with it.
    #[error("the host's address {address} is {range}")]
    Forbidden {
        /// The first refused answer.
        address: IpAddr,
        /// The special range that it belongs to.
        range: SpecialRange,
    },
}

/// Accepts `answers` when there is at least one and each is public or allowed by `opens`, which
/// gets the address in plain form and its range.
fn vet_except(
    answers: &[IpAddr],
    opens: impl Fn(IpAddr, SpecialRange) -> bool,
) -> Result<VettedAddresses, AddressError> {
    if answers.is_empty() {
        return Err(AddressError::NoAddress);
    }
    for &address in answers {
        match judge(address) {
            AddressVerdict::Forbidden(range) if !opens(plain(address), range) => {
                return Err(AddressError::Forbidden { address, range });
            }
            AddressVerdict::Public | AddressVerdict::Forbidden(_) => {}
        }
    }
    Ok(VettedAddresses(answers.to_vec()))
}

/// The IPv4 address that `ip` is routed to, when it contains one: IPv4-mapped, or NAT64. IPv6-only
/// subnets reach every IPv4 receiver through NAT64 (DNS64), so the prefix cannot be refused.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if NAT64.contains(&ip) => {
            let [.., a, b, c, d] = ip.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::V4),
        IpAddr::V4(ip) => ip.into(),
    }
}

fn judge_v4(ip: Ipv4Addr) -> AddressVerdict {
    match SPECIAL_V4.iter().find(|(range, _)| range.contains(&ip)) {
        Some((_, kind)) => AddressVerdict::Forbidden(*kind),
        None => AddressVerdict::Public,
    }
}

/// The public ranges in 2001::/23 are checked before the special ones.
fn judge_v6(ip: Ipv6Addr) -> AddressVerdict {
    if GLOBAL_DESPITE_2001_23.iter().any(|range| range.contains(&ip)) {
        return AddressVerdict::Public;
    }
    match SPECIAL_V6.iter().find(|(range, _)| range.contains(&ip)) {
        Some((_, kind)) => AddressVerdict::Forbidden(*kind),
        None if GLOBAL_V6.contains(&ip) => AddressVerdict::Public,
        None => AddressVerdict::Forbidden(SpecialRange::Reserved),
    }
}

const SPECIAL_V4: [(Ipv4Net, SpecialRange); 16] = [
    (v4([0, 0, 0, 0], 8), SpecialRange::Unspecified),
    (v4([10, 0, 0, 0], 8), SpecialRange::Private),
    (v4([100, 64, 0, 0], 10), SpecialRange::Private),
    (v4([127, 0, 0, 0], 8), SpecialRange::Loopback),
    (v4([169, 254, 0, 0], 16), SpecialRange::LinkLocal),
    (v4([172, 16, 0, 0], 12), SpecialRange::Private),
    (v4([192, 0, 0, 0], 24), SpecialRange::Reserved),
    (v4([192, 0, 2, 0], 24), SpecialRange::Documentation),
    // The anycast end of 6to4.
    (v4([192, 88, 99, 0], 24), SpecialRange::Tunnel),
    (v4([192, 168, 0, 0], 16), SpecialRange::Private),
    (v4([198, 18, 0, 0], 15), SpecialRange::Documentation),
    (v4([198, 51, 100, 0], 24), SpecialRange::Documentation),
    (v4([203, 0, 113, 0], 24), SpecialRange::Documentation),
    (v4([224, 0, 0, 0], 4), SpecialRange::Multicast),
    (v4([255, 255, 255, 255], 32), SpecialRange::Multicast),
    (v4([240, 0, 0, 0], 4), SpecialRange::Reserved),
];

const SPECIAL_V6: [(Ipv6Net, SpecialRange); 15] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), SpecialRange::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), SpecialRange::Loopback),
    // IPv4-compatible, SIIT, ISATAP without a prefix, local NAT64: an address here
    // without a plain form contains an IPv4 address that we cannot check.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 8), SpecialRange::Tunnel),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), SpecialRange::Reserved),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), SpecialRange::Tunnel),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), SpecialRange::Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), SpecialRange::Documentation),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), SpecialRange::Tunnel),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), SpecialRange::Documentation),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), SpecialRange::Reserved),
    // Unique local by its prefix, the link's by its use: metadata, time and names on AWS.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), SpecialRange::LinkLocal),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), SpecialRange::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), SpecialRange::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), SpecialRange::Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), SpecialRange::Multicast),
];

const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// The only part of IPv6 that IANA has given to the public internet. A network may use any other
/// for itself.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What IANA marks globally reachable inside 2001::/23.
const GLOBAL_DESPITE_2001_23: [Ipv6Net; 5] = [
    v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

#[cfg(test)]
mod tests;
