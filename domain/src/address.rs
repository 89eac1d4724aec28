//! Which addresses the relay may post to.
//!
//! Customers choose where their webhooks go, and the relay runs inside an
//! account full of things that trust their neighbours. So nothing is dialled
//! before [`judge`] called every address behind the name public: one bad answer
//! refuses the name, because a resolver that mixes public and private answers is
//! either broken or hostile, and what is dialled is the vetted set itself, never
//! a second lookup.
//!
//! The ranges are IANA's special-purpose registries, plus every way to write an
//! IPv4 address inside an IPv6 one.

mod target;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

pub use target::{ReceiverUrl, ReceiverUrlError, TargetPolicy};

/// What [`judge`] thinks of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A host on the public internet may live there.
    Public,
    /// Never dialled for a customer.
    Forbidden(SpecialRange),
}

/// Why an address is not a public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialRange {
    /// The sender itself, or no host at all.
    Unspecified,
    /// This machine.
    Loopback,
    /// A private network, carrier-grade NAT and unique local addresses included.
    Private,
    /// This link only; cloud metadata services live there.
    LinkLocal,
    /// Many hosts at once.
    Multicast,
    /// Examples and benchmarks; nothing real answers there.
    Documentation,
    /// IPv4 in disguise, or a tunnel whose far end cannot be judged.
    Tunnel,
    /// Set aside for protocols or for the future.
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

/// Says whether `ip` belongs to the public internet.
pub fn judge(ip: IpAddr) -> Verdict {
    match ip {
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

/// Why a name's addresses may not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The resolver knew the name but no address for it.
    #[error("the host name has no address")]
    NoAddress,
    /// At least this one is not public; the others are refused with it.
    #[error("the host's address {address} is {range}")]
    Forbidden {
        /// The first offending answer.
        address: IpAddr,
        /// What it is instead of public.
        range: SpecialRange,
    },
}

/// Accepts a resolver's `answers` when there are any and all of them are public.
pub fn vet(answers: &[IpAddr]) -> Result<VettedAddresses, AddressError> {
    vet_except(answers, |_| false)
}

/// Like [`vet`], but addresses that `exempt` knows are taken as they are.
fn vet_except(
    answers: &[IpAddr],
    exempt: impl Fn(IpAddr) -> bool,
) -> Result<VettedAddresses, AddressError> {
    if answers.is_empty() {
        return Err(AddressError::NoAddress);
    }
    for &address in answers {
        match judge(address) {
            Verdict::Forbidden(range) if !exempt(address) => {
                return Err(AddressError::Forbidden { address, range });
            }
            Verdict::Public | Verdict::Forbidden(_) => {}
        }
    }
    Ok(VettedAddresses(answers.to_vec()))
}

fn judge_v4(ip: Ipv4Addr) -> Verdict {
    match SPECIAL_V4.iter().find(|(range, _)| range.contains(&ip)) {
        Some((_, kind)) => Verdict::Forbidden(*kind),
        None => Verdict::Public,
    }
}

/// The order matters: IPv4 in a spelling that is really routed to that IPv4
/// address is judged as it; then the holes in 2001::/23; then the ranges.
fn judge_v6(ip: Ipv6Addr) -> Verdict {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return judge_v4(mapped);
    }
    // IPv6-only subnets reach every IPv4 receiver this way (DNS64), so refusing
    // the prefix would refuse them all.
    if NAT64.contains(&ip) {
        let [.., a, b, c, d] = ip.octets();
        return judge_v4(Ipv4Addr::new(a, b, c, d));
    }
    if GLOBAL_DESPITE_2001_23.iter().any(|range| range.contains(&ip)) {
        return Verdict::Public;
    }
    match SPECIAL_V6.iter().find(|(range, _)| range.contains(&ip)) {
        Some((_, kind)) => Verdict::Forbidden(*kind),
        None => Verdict::Public,
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

const SPECIAL_V6: [(Ipv6Net, SpecialRange); 14] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), SpecialRange::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), SpecialRange::Loopback),
    // IPv4-compatible, SIIT, ISATAP without a prefix, local NAT64: whatever is
    // here and was not decoded above names an IPv4 address we cannot vouch for.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 8), SpecialRange::Tunnel),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), SpecialRange::Reserved),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), SpecialRange::Tunnel),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), SpecialRange::Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), SpecialRange::Documentation),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), SpecialRange::Tunnel),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), SpecialRange::Documentation),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), SpecialRange::Reserved),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), SpecialRange::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), SpecialRange::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), SpecialRange::Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), SpecialRange::Multicast),
];

const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ips(list: &str) -> Vec<IpAddr> {
        list.split_whitespace().map(ip).collect()
    }

    fn is_public(text: &str) -> bool {
        judge(ip(text)) == Verdict::Public
    }

    #[test]
    fn every_special_range_is_refused() {
        for text in "
            0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.254 127.0.0.1 127.254.254.254
            169.254.169.254 169.254.100.1 172.16.0.1 172.31.255.255 192.0.0.255 192.0.2.255
            192.88.99.3 192.168.0.1 198.18.0.0 198.19.255.255 198.51.100.65 203.0.113.6 224.1.2.3
            239.255.255.250 240.240.240.240 255.255.255.255
            :: ::1 fc00::1 fd7a:115c:a1e0::1 fd00:ec2::254 fe80::1 febf:ffff::dead:beef fec0::1
            ff02::1 ff0e::1 100::1 2001:db8::1 3fff:fff::1 5f00::1 2001::1 2001:1ff::1
            2001:0:4136:e378:8000:63bf:3fff:fdd2
        "
        .split_whitespace()
        {
            assert!(!is_public(text), "{text} must be refused");
        }
    }

    #[test]
    fn no_spelling_hides_loopback_or_metadata() {
        for text in "
            ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:0.0.0.1 ::7f00:1 ::a9fe:a9fe ::ffff:0:7f00:1
            ::5efe:7f00:1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:: 64:ff9b:1::1
            64:ff9b:0:1::1 2002:7f00:1::1 2002:a9fe:a9fe::1
        "
        .split_whitespace()
        {
            assert!(!is_public(text), "{text} must be refused");
        }
    }

    /// Nobody can be assigned an address beside the NAT64 prefix, so that nothing
    /// is lost by refusing all of ::/8.
    #[test]
    fn the_neighbours_of_nat64_are_refused() {
        for text in ["64:ff9a:ffff::1", "64:ff9b::1:0:0", "64:ff9c::1", "ff:ffff::1"] {
            assert!(!is_public(text), "{text} must be refused");
        }
    }

    #[test]
    fn the_neighbours_of_every_range_are_public() {
        for text in "
            1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 ::ffff:8.8.8.8 100.63.255.254 100.128.0.1
            126.255.255.255 128.0.0.1 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0
            192.0.1.0 192.0.3.0 192.88.98.255 192.88.100.1 192.167.255.255 192.169.0.0
            198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0
            223.255.255.255
            100:0:0:1::1 2001:200::1 2001:1::1 2001:1::2 2001:3::1 2001:4:112::1 2001:20::1
            2001:db7:ffff::1 2001:db9::1 2003::1 3ffe:ffff::1 3fff:1000::1 2606:4700:4700::1111
            64:ff9b::5db8:d822
        "
        .split_whitespace()
        {
            assert!(is_public(text), "{text} must be allowed");
        }
    }

    #[test]
    fn the_reason_is_named() {
        let verdicts = ["127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1", "::1", "fec0::1"]
            .map(|text| match judge(ip(text)) {
                Verdict::Forbidden(range) => range.to_string(),
                Verdict::Public => "public".to_owned(),
            });
        assert_eq!(
            verdicts,
            [
                "a loopback address",
                "a link-local address",
                "a private network's address",
                "a loopback address",
                "a private network's address",
            ]
        );
    }

    #[test]
    fn one_forbidden_answer_refuses_the_name() {
        for (answers, culprit) in [
            ("1.1.1.1 127.0.0.1", "127.0.0.1"),
            ("1.1.1.1 fe80::1", "fe80::1"),
            ("2606:4700:4700::1111 10.0.0.1", "10.0.0.1"),
            ("10.0.0.1 1.1.1.1", "10.0.0.1"),
        ] {
            let refused = vet(&ips(answers));
            assert!(
                matches!(refused, Err(AddressError::Forbidden { address, .. }) if address == ip(culprit)),
                "{answers}: {refused:?}"
            );
        }
        assert_eq!(vet(&[]), Err(AddressError::NoAddress));

        let all_public = ips("2606:4700:4700::1111 1.1.1.1");
        assert_eq!(vet(&all_public).unwrap().as_slice(), all_public);
    }

    proptest! {
        #[test]
        fn nat64_is_judged_by_the_address_inside(bits: u32) {
            let inside = Ipv4Addr::from_bits(bits);
            let [.., low_high, low_low] = inside.to_ipv6_mapped().segments();
            let outside = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, low_high, low_low);
            prop_assert_eq!(judge(outside.into()), judge(inside.into()));
            prop_assert_eq!(judge(inside.to_ipv6_mapped().into()), judge(inside.into()));
        }

        #[test]
        fn nothing_else_below_100_is_public(bits: u128) {
            let ip = Ipv6Addr::from_bits(bits >> 8);
            prop_assume!(!NAT64.contains(&ip) && ip.to_ipv4_mapped().is_none());
            prop_assert_ne!(judge(ip.into()), Verdict::Public);
        }

        #[test]
        fn nothing_in_6to4_is_public(bits: u128) {
            let ip = Ipv6Addr::from_bits((0x2002 << 112) | (bits >> 16));
            prop_assert_ne!(judge(ip.into()), Verdict::Public);
        }

        #[test]
        fn no_answer_set_with_a_loopback_passes(
            public in proptest::collection::vec(any::<u32>(), 0..4), at in any::<prop::sample::Index>()
        ) {
            let mut answers: Vec<IpAddr> =
                public.into_iter().map(|bits| Ipv4Addr::from_bits(bits).into()).collect();
            answers.insert(at.index(answers.len() + 1), Ipv4Addr::LOCALHOST.into());
            prop_assert!(vet(&answers).is_err());
        }
    }
}
