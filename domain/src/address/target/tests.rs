use proptest::prelude::*;

use super::super::tests::cases;
use super::*;

/// Lenient about the port, so that the address is what decides.
fn any_port() -> TargetPolicy {
    TargetPolicy::public().with_ports(ReceiverPorts::parse("443,9876,9854").unwrap())
}

#[test]
fn receiver_url_checks_literal_addresses() {
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
fn receiver_url_must_be_a_url() {
    for text in cases().urls.not_urls {
        let error = ReceiverUrl::parse(&text, &TargetPolicy::local_use());
        assert!(matches!(error, Err(ReceiverUrlError::Malformed(_))), "{text}: {error:?}");
    }
}

/// A name that DNS cannot carry is never resolved, under any policy.
#[test]
fn receiver_url_host_must_fit_dns() {
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
fn receiver_url_refusal_says_why() {
    let long = format!("https://example.com/{}", "x".repeat(2048));
    let grows = format!("https://example.com/{}", "ü".repeat(1000));
    let long_name = format!("https://{}com/", "a.".repeat(130));
    let sentences = [
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
    insta::assert_snapshot!(sentences.join("\n"), @r"
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
fn receiver_url_is_normalised() {
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
fn receiver_url_local_policy_is_open() {
    for text in [
        "http://127.0.0.1:8080/receiver/a",
        "http://localhost:3000/",
        "https://[::1]:9876/",
        "http://host.docker.internal/",
        "http://10.1.2.3/",
    ] {
        let url = ReceiverUrl::parse(text, &TargetPolicy::local_use()).unwrap();
        assert!(url.satisfies(&TargetPolicy::public()).is_err(), "{text} is for local use only");
    }
}

proptest! {
    #[test]
    fn receiver_url_parses_again_unchanged(
        text in "https?://[a-z0-9.:@#\\[\\]%ü-]{0,40}(/\\PC{0,20})?"
    ) {
        for policy in [TargetPolicy::public(), TargetPolicy::local_use()] {
            if let Ok(url) = ReceiverUrl::parse(&text, &policy) {
                prop_assert_eq!(ReceiverUrl::parse(url.as_str(), &policy), Ok(url));
            }
        }
    }
}
