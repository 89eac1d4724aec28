//! The table is `tests/addresses.json`: what other senders' tests refuse and allow, taken
//! together, and the edges of every range.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
pub(super) struct Cases {
    /// Address and what it is.
    refused: BTreeMap<IpAddr, String>,
    /// The same, for other spellings of an IPv4 address.
    disguised: BTreeMap<String, String>,
    public: Vec<IpAddr>,
    answers: Vec<AnswerSet>,
    pub(super) urls: Urls,
}

#[derive(Deserialize)]
struct AnswerSet {
    answers: Vec<IpAddr>,
    /// Which of them is to blame, if one is.
    culprit: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Urls {
    /// Refused for their address.
    pub(super) refused: Vec<String>,
    pub(super) with_credentials: Vec<String>,
    pub(super) not_urls: Vec<String>,
}

pub(super) fn cases() -> Cases {
    serde_json::from_str(include_str!("../../tests/addresses.json")).unwrap()
}

fn range_of(ip: IpAddr) -> String {
    match judge(ip) {
        AddressVerdict::Public => "public".to_owned(),
        AddressVerdict::Forbidden(range) => range.to_string(),
    }
}

fn is_public(ip: impl Into<IpAddr>) -> bool {
    judge(ip.into()) == AddressVerdict::Public
}

#[test]
fn address_special_ranges_are_refused() {
    for (ip, range) in cases().refused {
        assert_eq!(range_of(ip), range, "{ip}");
    }
}

#[test]
fn address_spelling_does_not_matter() {
    for (text, range) in cases().disguised {
        assert_eq!(range_of(text.parse().unwrap()), range, "{text}");
    }
}

#[test]
fn address_neighbours_of_ranges_are_public() {
    for ip in cases().public {
        assert_eq!(range_of(ip), "public", "{ip}");
    }
}

/// The first and the last address of each, unless a range within it has them.
#[test]
fn address_ranges_have_exact_edges() {
    let all: Vec<(IpNet, SpecialRange)> = SPECIAL_V4
        .map(|(range, kind)| (range.into(), kind))
        .into_iter()
        .chain(SPECIAL_V6.map(|(range, kind)| (range.into(), kind)))
        .collect();
    for (range, kind) in &all {
        for ip in [range.network(), range.broadcast()] {
            let inner =
                all.iter().filter(|(other, _)| range.contains(other) && other.contains(&ip));
            let narrowest = inner.max_by_key(|(other, _)| other.prefix_len()).unwrap().1;
            let verdict = judge(ip);
            assert_eq!(verdict, AddressVerdict::Forbidden(narrowest), "{ip} of {range}, {kind}");
        }
    }
}

#[test]
fn address_one_forbidden_answer_refuses_name() {
    for AnswerSet { answers, culprit } in cases().answers {
        let vetted = TargetPolicy::public().vet_name("receiver.example", &answers);
        match culprit {
            None => assert_eq!(vetted.unwrap().as_slice(), answers),
            Some(culprit) => assert!(
                matches!(vetted, Err(AddressError::Forbidden { address, .. }) if address == culprit),
                "{answers:?}: {vetted:?}"
            ),
        }
    }
    let nothing = TargetPolicy::public().vet_name("receiver.example", &[]);
    assert_eq!(nothing, Err(AddressError::NoAddress));
}

/// `ip` behind NAT64 (RFC 6052).
fn behind_nat64(ip: Ipv4Addr) -> Ipv6Addr {
    let [.., high, low] = ip.to_ipv6_mapped().segments();
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)
}

/// Where a verdict changes, a random address hardly ever falls.
#[test]
fn address_nat64_counts_as_inner_address() {
    let edges = SPECIAL_V4.iter().flat_map(|(range, _)| {
        let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
        [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
    });
    for inside in edges.map(Ipv4Addr::from_bits) {
        assert_eq!(judge(behind_nat64(inside).into()), judge(inside.into()), "{inside}");
    }
}

proptest! {
    #[test]
    fn address_embedded_decides_for_nat64_and_mapped(bits: u32) {
        let inside = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(judge(behind_nat64(inside).into()), judge(inside.into()));
        prop_assert_eq!(judge(inside.to_ipv6_mapped().into()), judge(inside.into()));
    }

    #[test]
    fn nothing_else_below_100_is_public(bits: u128) {
        let ip = Ipv6Addr::from_bits(bits >> 8);
        prop_assume!(!NAT64.contains(&ip) && ip.to_ipv4_mapped().is_none());
        prop_assert!(!is_public(ip));
    }

    #[test]
    fn nothing_outside_2000_is_public(bits: u128) {
        prop_assume!(bits >> 125 != 1);
        let ip = Ipv6Addr::from_bits(bits);
        prop_assume!(!NAT64.contains(&ip) && ip.to_ipv4_mapped().is_none());
        prop_assert!(!is_public(ip));
    }

    #[test]
    fn nothing_in_6to4_is_public(bits: u128) {
        prop_assert!(!is_public(Ipv6Addr::from_bits((0x2002 << 112) | (bits >> 16))));
    }

    /// Every IPv4 address that is refused is refused in each spelling that hides it.
    #[test]
    fn address_refusal_holds_in_every_spelling(
        (range, _) in prop::sample::select(&SPECIAL_V4[..]), bits: u32
    ) {
        let host = u32::from(range.hostmask());
        let inside = Ipv4Addr::from_bits(u32::from(range.network()) | (bits & host));
        let [.., high, low] = inside.to_ipv6_mapped().segments();
        for spelling in [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0x5efe, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
        ] {
            prop_assert!(!is_public(spelling), "{} as {}", inside, spelling);
        }
    }

    #[test]
    fn address_set_with_loopback_is_refused(
        public in proptest::collection::vec(any::<u32>(), 0..4), at in any::<prop::sample::Index>()
    ) {
        let mut answers: Vec<IpAddr> =
            public.into_iter().map(|bits| Ipv4Addr::from_bits(bits).into()).collect();
        answers.insert(at.index(answers.len() + 1), Ipv4Addr::LOCALHOST.into());
        prop_assert!(TargetPolicy::public().vet_name("receiver.example", &answers).is_err());
    }
}
