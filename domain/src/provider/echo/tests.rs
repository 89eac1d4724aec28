use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::json;

use super::*;

const KEY: &str = "sk_live/4Z+9q=Kd81";
const TOKEN: &str = "b2VvZl9hX2NhbGxiYWNrX29mX29uZV9qb2Jfb25seQo";

fn key() -> EchoMask {
    EchoMask::default().with_secret(KEY)
}

/// The text with `%` in the place of the mask.
fn masked(mask: &EchoMask, text: &str) -> String {
    mask.masked(text).unwrap_or_else(|| text.to_owned()).replace(MASK, "%")
}

fn escaped_as(each: impl Fn(char) -> String) -> String {
    KEY.chars().map(each).collect()
}

#[test]
fn key_is_masked_however_it_is_escaped() {
    let in_document = json!({"sent": format!("Bearer {KEY}")}).to_string();
    let twice = json!(in_document).to_string();
    let spellings = [
        KEY.to_owned(),
        KEY.to_uppercase(),
        escaped_as(|c| format!("%{:02X}", u32::from(c))),
        escaped_as(|c| format!("%{:02x}", u32::from(c))),
        escaped_as(|c| format!("%25{:02x}", u32::from(c))),
        escaped_as(|c| format!("\\u{:04x}", u32::from(c))),
        escaped_as(|c| format!("\\\\u{:04X}", u32::from(c))),
        escaped_as(|c| format!("\\x{:02x}", u32::from(c))),
        escaped_as(|c| format!("&#{};", u32::from(c))),
        escaped_as(|c| format!("&#x{:x};", u32::from(c))),
        KEY.replace('/', "\\/"),
        KEY.replace('/', "\\\\/"),
        KEY.replace('/', "%2F"),
        KEY.replace('/', "%252F").replace('+', "%2B").replace('=', "%3d"),
        KEY.replace('+', "&#43;").replace('=', "&equals;"),
        hex::encode(KEY),
        hex::encode_upper(KEY),
    ];
    for spelling in spellings {
        let text = format!("the key «{spelling}» is not ours");
        assert_eq!(masked(&key(), &text), "the key «%» is not ours", "{spelling}");
    }
    assert_eq!(masked(&key(), &in_document), r#"{"sent":"Bearer %"}"#);
    assert_eq!(masked(&key(), &twice), r#""{\"sent\":\"Bearer %\"}""#);
    assert_eq!(masked(&key(), &format!("{KEY}{KEY}, {KEY}")), "%%, %");
}

#[test]
fn key_in_base64_is_masked_whole() {
    for around in ["{}", "{}:", ":{}", "u:{}", "us:{}", "use:{}", "user:{}:more", "é{}"] {
        let sent = around.replace("{}", KEY);
        for encoded in [STANDARD.encode(&sent), URL_SAFE.encode(&sent)] {
            let text = format!("Authorization: Basic {encoded}.");
            assert_eq!(masked(&key(), &text), "Authorization: Basic %.", "{sent}");
            let escaped = text.replace('/', "%2F").replace('=', "%3D");
            assert_eq!(masked(&key(), &escaped), "Authorization: Basic %.", "{sent}");
        }
    }
}

#[test]
fn password_of_key_is_masked_alone() {
    let basic = EchoMask::default().with_secret("token-id-81:S3cretPassw0rd");
    let text = "no account for token-id-81 with S3cretPassw0rd";
    assert_eq!(masked(&basic, text), "no account for token-id-81 with %");
    assert_eq!(masked(&basic, "token-id-81:S3cretPassw0rd?"), "%?");
    for only in ["S3cretPassw0rd:", ":S3cretPassw0rd"] {
        let only = EchoMask::default().with_secret(only);
        assert_eq!(masked(&only, "bad S3cretPassw0rd"), "bad %");
    }
}

#[test]
fn short_key_is_masked_as_word_only() {
    let short = EchoMask::default().with_secret("font");
    assert_eq!(masked(&short, "key \"font\" is unknown"), "key \"%\" is unknown");
    assert_eq!(masked(&short, "?key=font&a=1"), "?key=%&a=1");
    for text in ["font", "no fonts", "fonts/font-1", "font.ttf", "https://cdn/font/x.mp4"] {
        assert_eq!(masked(&short, text), text);
    }
    let shorter = EchoMask::default().with_secret("a");
    assert_eq!(masked(&shorter, "a clip is a clip"), "a clip is a clip");
}

#[test]
fn callback_token_is_masked_without_knowing_it() {
    let url =
        format!("https://relay.example/prod/v1/webhooks/zvid/job_{}/{TOKEN}", "07".repeat(16));
    let kept = url.replace(TOKEN, "%");
    let none = EchoMask::default();
    for (text, expected) in [
        (format!("POST {url}: 500"), format!("POST {kept}: 500")),
        (format!("<{url}?a=1>"), format!("<{kept}?a=1>")),
        (url.replace('/', "\\/"), kept.replace('/', "\\/")),
        (url.replace('/', "%2F").replace(':', "%3A"), kept.replace('/', "%2F").replace(':', "%3A")),
        (url.replace('_', "%5F"), kept.replace('_', "%5F")),
    ] {
        assert_eq!(masked(&none, &text), expected);
    }
    for text in ["/v1/webhooks/zvid", "see https://vendor.example/v1/webhooks/a/b/0123456789"] {
        assert_eq!(masked(&none, text), text);
    }
    let known = EchoMask::default().with_secret(TOKEN);
    assert_eq!(masked(&known, &format!("token {TOKEN}")), "token %");
}

#[test]
fn signatures_and_signing_secrets_are_masked() {
    let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let list = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5=";
    let mask = EchoMask::default().with_signatures(&format!("t=1779624041,v1={hex}"));
    assert_eq!(masked(&mask, &format!("t=1779624041,v1={hex}")), "t=1779624041,v1=%");
    let mask = EchoMask::default().with_signatures(list);
    assert_eq!(masked(&mask, list), "v1,%= v1a,%=");
    let none = EchoMask::default();
    let text = "signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw here";
    assert_eq!(masked(&none, text), "signed with % here");
    assert_eq!(masked(&none, "whsec_ is missing"), "whsec_ is missing");
}

#[test]
fn document_is_masked_in_all_its_texts() {
    let mut document = json!({
        "a": [{"b": format!("x {KEY}")}, KEY, 7, null, true],
        "c": {"d": STANDARD.encode(KEY)}, "e": "kept",
    });
    assert!(key().mask(&mut document));
    let expected = json!({
        "a": [{"b": "x [secret]"}, "[secret]", 7, null, true], "c": {"d": "[secret]"}, "e": "kept",
    });
    assert_eq!(document, expected);
    assert!(!key().mask(&mut document), "nothing is left");
    let mut number = json!({"id": 1_234_567_890_u64, "at": 912_345_678_901_u64});
    assert!(EchoMask::default().with_secret("1234567890").mask(&mut number));
    assert_eq!(number, json!({"id": "[secret]", "at": 912_345_678_901_u64}));
}

#[test]
fn ordinary_text_is_not_masked() {
    let mask = key().with_secret("user-1:pass").with_signatures("sha256=abc");
    for text in [
        "",
        "succeeded",
        "100% of 3 clips & more \\o/",
        "https://cdn.example/a%20b.mp4?sig=%2B%",
        "&amp;&#0;&#xzz;&nonsense;%zz\\u12\\",
        "ünïcödé % \\u00e9 %C3%A9",
        "sk_live",
        "key",
    ] {
        assert_eq!(mask.masked(text), None, "{text}");
    }
    assert!(!format!("{mask:?}").contains("sk_live"));
}
