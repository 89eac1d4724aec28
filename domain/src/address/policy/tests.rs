use super::super::ReceiverUrl;
use super::*;

fn ports(text: &str) -> ReceiverPorts {
    ReceiverPorts::parse(text).unwrap()
}

fn accepts(policy: &TargetPolicy, url: &str) -> bool {
    ReceiverUrl::parse(url, policy).is_ok()
}

fn ips(list: &str) -> Vec<IpAddr> {
    list.split_whitespace().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn policy_listed_ports_replace_443() {
    let policy = TargetPolicy::public().with_ports(ports("8443, 9443"));
    assert!(accepts(&policy, "https://example.com:8443/"));
    assert!(accepts(&policy, "https://example.com:9443/"));
    let refused = ReceiverUrl::parse("https://example.com/", &policy).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the receiver URL must not use port 443; receivers may use 8443, 9443"
    );
}

#[test]
fn policy_http_uses_80_and_listed_ports() {
    let closed = TargetPolicy::public().with_ports(ports("80,443,8080"));
    assert!(!accepts(&closed, "http://example.com/"), "a port does not open a scheme");

    let open = TargetPolicy::public().with_plain_http().with_ports(ports("443,8080"));
    assert!(accepts(&open, "http://example.com/"));
    assert!(accepts(&open, "http://example.com:8080/"));
    assert!(!accepts(&open, "http://example.com:8081/"));
    assert!(!accepts(&open, "http://example.com:443/"));
    assert!(accepts(&open, "https://example.com/"));
    assert!(!accepts(&open, "https://example.com:80/"));
    assert!(!accepts(&open, "http://127.0.0.1/"));
}

#[test]
fn policy_opens_only_listed_networks() {
    let networks = PrivateNetworks::parse("10.20.0.0/16, fd12:3456::/32").unwrap();
    let policy = TargetPolicy::public().with_private_networks(networks);
    assert!(accepts(&policy, "https://10.20.1.2/"));
    assert!(accepts(&policy, "https://[fd12:3456::1]/"));
    assert!(accepts(&policy, "https://[::ffff:10.20.1.2]/"), "however it is spelled");
    assert!(accepts(&policy, "https://[64:ff9b::a14:102]/"), "10.20.1.2 behind NAT64");
    for url in
        ["https://10.21.0.1/", "https://[fd12:3457::1]/", "https://127.0.0.1/", "https://[::1]/"]
    {
        assert!(!accepts(&policy, url), "{url}");
    }
    let vetted = |answers: &str| policy.vet_name("hooks.example.com", &ips(answers)).is_ok();
    assert!(vetted("10.20.0.1 1.1.1.1"));
    assert!(!vetted("10.20.0.1 10.21.0.1"), "one bad address refuses all");
}

/// A list of all private addresses still contains no metadata service.
#[test]
fn policy_never_opens_loopback_or_metadata() {
    let networks =
        PrivateNetworks::parse("10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7").unwrap();
    let hosts = PrivateHosts::parse("*.example.com,*.internal").unwrap();
    let policy = TargetPolicy::public().with_private_networks(networks).with_private_hosts(hosts);
    for answer in ips("127.0.0.1 ::1 169.254.169.254 169.254.170.2 fd00:ec2::254 fd00:ec2::23
        fe80::1 0.0.0.0 :: 224.0.0.1 ff02::1 ::ffff:127.0.0.1 64:ff9b::a9fe:a9fe 2002:a00:1::1
        198.51.100.1 240.0.0.1")
    {
        for name in ["a.example.com", "a.internal"] {
            assert!(policy.vet_name(name, &[answer]).is_err(), "{name} at {answer}");
        }
        assert!(policy.vet_literal(answer).is_err(), "{answer}");
    }
}

#[test]
fn policy_listed_host_may_be_private() {
    let hosts = PrivateHosts::parse("Hooks.Example.COM, *.svc.example.net,*.internal").unwrap();
    let policy = TargetPolicy::public().with_private_hosts(hosts);
    let private = ips("10.0.0.1 192.168.3.4 fd00::1");
    for name in ["hooks.example.com", "hooks.example.com.", "a.svc.example.net", "a.b.internal"] {
        assert!(policy.vet_name(name, &private).is_ok(), "{name}");
        assert!(accepts(&policy, &format!("https://{name}/")), "{name}");
    }
    for name in [
        "example.com",
        "a.hooks.example.com",
        "xhooks.example.com",
        "svc.example.net",
        "asvc.example.net",
        "hooks.example.com.evil.example",
    ] {
        assert!(policy.vet_name(name, &private).is_err(), "{name}");
    }
    assert!(!accepts(&policy, "https://internal/"));
    assert!(!accepts(&policy, "https://printer.local/"));
    assert!(!accepts(&policy, "https://10.0.0.1/"), "a name opens no literal address");
}

#[test]
fn policy_malformed_settings_are_refused() {
    let ports = ["", "443,", "0", "65536", "https", "+443", "-1", "443 8443"];
    for text in ports {
        assert!(ReceiverPorts::parse(text).is_err(), "{text}");
    }
    for (text, problem) in [
        ("10.0.0.0", "`10.0.0.0` is not a network; one is like 10.20.0.0/16"),
        ("10.0.0.0/33", "`10.0.0.0/33` is not a network; one is like 10.20.0.0/16"),
        ("10.0.0.0/8,", "`` is not a network; one is like 10.20.0.0/16"),
        ("10.1.2.3/8", "`10.1.2.3/8` names a host within its network; the network is 10.0.0.0/8"),
        (
            "127.0.0.0/8",
            "127.0.0.0/8 is not within the private ranges 10.0.0.0/8, 100.64.0.0/10, \
             172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15, fc00::/7",
        ),
    ] {
        assert_eq!(PrivateNetworks::parse(text).unwrap_err().to_string(), problem);
    }
    for text in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/7",
        "169.254.169.254/32",
        "8.8.8.0/24",
        "::ffff:10.0.0.0/104",
        "64:ff9b::a00:0/104",
        "fe80::/10",
    ] {
        let refused = PrivateNetworks::parse(text);
        assert!(matches!(refused, Err(NetworksError::NotPrivate(_))), "{text}: {refused:?}");
    }
    let sentences = [
        "*",
        "*.",
        "*.com",
        "localhost",
        "hooks",
        "10.0.0.1",
        "[::1]",
        "hooks.*.example.com",
        "hooks.example.com:8443",
        "https://hooks.example.com",
        "a..example.com",
        "a.example.com,",
    ]
    .map(|text| PrivateHosts::parse(text).unwrap_err().to_string());
    insta::assert_snapshot!(sentences.join("\n"), @"
    `*` is not a host name; one is like hooks.example.com or *.example.com
    `*.` is not a host name; one is like hooks.example.com or *.example.com
    `*.com` is not specific enough; name a host below a domain of your own
    `localhost` is not specific enough; name a host below a domain of your own
    `hooks` is not specific enough; name a host below a domain of your own
    `10.0.0.1` is an address; allow its network instead
    `[::1]` is an address; allow its network instead
    `hooks.*.example.com` is not a host name; one is like hooks.example.com or *.example.com
    `hooks.example.com:8443` is not a host name; one is like hooks.example.com or *.example.com
    `https://hooks.example.com` is not a host name; one is like hooks.example.com or *.example.com
    `a..example.com` is not a host name; one is like hooks.example.com or *.example.com
    `` is not a host name; one is like hooks.example.com or *.example.com
    ");

    assert_eq!(PrivateNetworks::parse(""), Ok(PrivateNetworks::default()));
    assert_eq!(PrivateHosts::parse(""), Ok(PrivateHosts::default()));
}
