use proptest::prelude::*;
use serde_json::json;

use super::*;

const URL: &str = "https://shop.example/hooks";

fn headers(value: Value) -> Result<CustomHeaders, HeadersError> {
    CustomHeaders::from_json(value)
}

#[test]
fn headers_have_lower_case_names() {
    let taken = headers(json!({
        "Authorization": "Bearer abc.def",
        "X-Shop": "berlin, \"mitte\"",
        "accept": "*/*",
        "x-api-key": "k",
    }));
    let taken = taken.unwrap();
    let names: Vec<_> = taken.names().collect();
    assert_eq!(names, ["accept", "authorization", "x-api-key", "x-shop"]);
    assert!(taken.iter().any(|pair| pair == ("authorization", "Bearer abc.def")));
}

/// Svix's list, hop-by-hop headers, and headers that a receiver may trust because only we, a
/// proxy or a cloud should set them.
#[test]
fn headers_reserved_are_refused_in_any_case() {
    for name in [
        "User-Agent",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "TE",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "age",
        "cache-control",
        "clear-site-data",
        "expires",
        "pragma",
        "warning",
        "Content-Length",
        "content-type",
        "content-encoding",
        "content-language",
        "content-location",
        "host",
        "connection",
        "trailer",
        "cookie",
        "set-cookie",
        "expect",
        "via",
        "forwarded",
        "X-Forwarded-For",
        "x-real-ip",
        "webhook-id",
        "Webhook-Signature",
        "webhook-anything",
        "svix-id",
        "x-svix-id",
        "x-amz-date",
        "x-amzn-trace-id",
        "x-google-x",
        "x-goog-x",
        "x-gfe-x",
        "x-azure-ref",
        "x-fd-healthprobe",
        "sec-fetch-site",
        "if-match",
        "access-control-allow-origin",
        "proxy-connection",
    ] {
        let forbidden = HeadersError::Forbidden(name.to_ascii_lowercase());
        assert_eq!(headers(json!({name: "x"})), Err(forbidden), "{name}");
    }
}

#[test]
fn headers_malformed_are_refused() {
    for name in ["", "two words", "x:y", "x\r\ny", "ü", ":authority", &"x".repeat(65)] {
        assert_eq!(headers(json!({name: "x"})), Err(HeadersError::Name), "{name}");
    }
    for value in ["", " x", "x ", "a\r\nb: c", "a\tb", "a\0b", "ü", "a\u{7f}", &"x".repeat(2049)] {
        let refused = HeadersError::Value("x-shop".into());
        assert_eq!(headers(json!({"X-Shop": value})), Err(refused), "{value:?}");
    }
    assert!(headers(json!({"x-shop": "x".repeat(2048)})).is_ok());
    for shape in [json!([]), json!("x"), json!({"x-shop": 5}), json!({"x-shop": null})] {
        assert_eq!(headers(shape), Err(HeadersError::Shape));
    }
    let twice = headers(json!({"X-Shop": "a", "x-shop": "b"}));
    assert_eq!(twice, Err(HeadersError::Twice("x-shop".into())));
}

#[test]
fn headers_have_size_limits() {
    let many = |count: usize| {
        headers((0..count).map(|n| (format!("x-{n}"), json!("v"))).collect::<Value>())
    };
    assert!(many(20).is_ok());
    assert_eq!(many(21), Err(HeadersError::TooMany));
    let long = |bytes: usize| {
        let half = "\"".repeat(bytes / 2);
        ReceiverHeaders::new(URL, headers(json!({"x-a": half, "x-b": half})).unwrap())
    };
    assert!(long(1900).is_ok());
    assert_eq!(long(2100), Err(HeadersError::TooLarge), "as JSON, a quote takes two bytes");
}

#[test]
fn headers_are_bound_to_one_receiver() {
    let sent = headers(json!({"authorization": "Bearer abc"})).unwrap();
    let bound = ReceiverHeaders::new(URL, sent.clone()).unwrap();
    let read = ReceiverHeaders::parse(&bound.reveal().unwrap()).unwrap();
    assert_eq!(read.for_receiver(URL), Some(&sent));
    assert_eq!(read.for_receiver("https://shop.example/hooks/"), None);
    assert_eq!(read.for_receiver("https://evil.example/"), None);
}

#[test]
fn headers_values_are_never_shown() {
    let sent = headers(json!({"authorization": "Bearer hidden"})).unwrap();
    let bound = ReceiverHeaders::new(URL, sent).unwrap();
    let shown = format!("{bound:?}");
    assert!(shown.contains("authorization") && !shown.contains("hidden"), "{shown}");
    for wrong in [json!({"x-a": "hidden\n"}), json!({"host": "hidden"}), json!({"x": ["hidden"]})] {
        let error = headers(wrong).unwrap_err().to_string();
        assert!(!error.contains("hidden"), "{error}");
    }
    let stored = bound.reveal().unwrap().replace("Bearer", "\\n");
    let error = ReceiverHeaders::parse(&stored).unwrap_err().to_string();
    assert!(!error.contains("hidden"), "{error}");
}

proptest! {
    /// An accepted header can be sent as it is, and adds nothing else to the request.
    #[test]
    fn headers_accepted_are_one_line_each(name in "\\PC{0,12}", value in any::<String>()) {
        if let Ok(taken) = headers(json!({name: value})) {
            for (name, value) in taken.iter() {
                let read = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                prop_assert_eq!(read.as_str(), name);
                let read = http::HeaderValue::from_str(value).unwrap();
                prop_assert_eq!(read.to_str().unwrap(), value);
            }
        }
    }
}

#[test]
fn headers_id_round_trips() {
    let id = HeadersId::from_random([0, 1, 2, 3, 4, 5, 6, 255]);
    assert_eq!(
        (id.to_string().as_str(), HeadersId::parse(&id.to_string())),
        ("00010203040506ff", Some(id))
    );
    for wrong in ["", "0001", "00010203040506FF", "00010203040506ff00", "../../../../x/xx"] {
        assert_eq!(HeadersId::parse(wrong), None, "{wrong}");
    }
}
