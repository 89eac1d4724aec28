//! What senders, their libraries and their documentation computed, byte for byte.

use chrono::DateTime;

use crate::sender::{Row, row};
use domain::verifier::{Incoming, Reason, Verification};

struct Vector {
    sender: &'static str,
    secret: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    at: i64,
}

const VIRALSYNC: &str = concat!(
    r#"{"jobId":"job_a1b2c3d4e5f6","status":"done","progress":1.0,"#,
    r#""outputUrl":"https://r2.viralsync.io/outputs/job_a1b2c3d4e5f6/output.mp4","#,
    r#""timestamp":"2026-04-02T10:00:52.000Z"}"#
);

const RENDERIO: &str = concat!(
    r#"{"data":{"command_id":"a1b2c3d4-e5f6-7890-abcd-ef1234567890","status":"SUCCESS"},"#,
    r#""timestamp":1700000000000}"#
);

const VECTORS: &[Vector] = &[
    Vector {
        sender: "viralsync",
        secret: "whsec_test",
        headers: &[(
            "X-Render-Signature",
            "0e7ec33015138be66da4ad635af0b3432e4caf43cd73148e343f88d62a56e8a5",
        )],
        body: VIRALSYNC,
        at: 0,
    },
    Vector {
        sender: "renderio",
        secret: "whsec_test",
        headers: &[(
            "X-Webhook-Signature",
            "5cd9589bd40eafb7dfd72a56e49a15b5a714a7d8074a7d949a2f5ba8291d1733",
        )],
        body: RENDERIO,
        at: 0,
    },
    Vector {
        sender: "zvid",
        secret: "whsec_test",
        headers: &[
            (
                "X-Zvid-Signature",
                "sha256=aeb21fc6d59450923dde16428fe883ed44a0279f021bd5422e6afc2785cc91de",
            ),
            ("X-Zvid-Timestamp", "1700000000"),
        ],
        body: r#"{"event":"render.completed","jobId":"j1","data":{"url":"https://cdn/x.mp4"}}"#,
        at: 1_700_000_000,
    },
    Vector {
        sender: "remotion",
        secret: "whsec_test",
        headers: &[(
            "X-Remotion-Signature",
            concat!(
                "sha512=3de9b14dcf198e29f2d73082359ec5e48c9b990c5217ca822656439e62c3a06b",
                "021777fa8f3b1d9f98d02577de2202503b7a8247fe79453e283280b1ea7bae1a"
            ),
        )],
        body: r#"{"type":"timeout","renderId":"r1","expectedBucketOwner":"1","bucketName":"b","customData":null}"#,
        at: 0,
    },
    Vector {
        sender: "mux",
        secret: "whsec_test",
        headers: &[(
            "Mux-Signature",
            "t=1565220904,v1=7b0d0b8310bd0b5acc7cc3de7fe69fa9752d372f8d8990fd2ff930ab19903c97",
        )],
        body: "{}",
        at: 1_565_220_904,
    },
    Vector {
        sender: "cloudinary",
        secret: "api_secret",
        headers: &[
            ("X-Cld-Signature", "57f5ca240ccd2a4cd20c0245d62bf8b6b7ddb2a8"),
            ("X-Cld-Timestamp", "1700000000"),
        ],
        body: "{}",
        at: 1_700_000_000,
    },
    Vector {
        sender: "github",
        secret: "It's a Secret to Everybody",
        headers: &[(
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        body: "Hello, World!",
        at: 0,
    },
    Vector {
        sender: "replicate",
        secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        headers: &[
            ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
            ("webhook-timestamp", "1649367553"),
            ("webhook-signature", "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
        ],
        body: r#"{"email":"test@example.com","username":"test_user"}"#,
        at: 1_649_367_553,
    },
    Vector {
        sender: "clerk",
        secret: "whsec_plJ3nmyCDGBKInavdOK15jsl",
        headers: &[
            ("svix-id", "msg_loFOjxBNrRLzqYUf"),
            ("svix-timestamp", "1731705121"),
            ("svix-signature", "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="),
        ],
        body: r#"{"event_type":"ping","data":{"success":true}}"#,
        at: 1_731_705_121,
    },
    Vector {
        sender: "replicate",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", SVIX_BOTH),
        ],
        body: r#"{"test": 2432232314}"#,
        at: 1_614_265_330,
    },
    Vector {
        sender: "gemini",
        secret: "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", SVIX_BOTH),
        ],
        body: r#"{"test": 2432232314}"#,
        at: 1_614_265_330,
    },
];

/// The same request signed in both versions of Standard Webhooks.
const SVIX_BOTH: &str = concat!(
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= ",
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
);

fn verify(vector: &Vector, row: &Row, body: &[u8]) -> Verification {
    let headers: Vec<(&str, &[u8])> =
        vector.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let secrets = row.scheme.parse_secrets(vector.secret).unwrap();
    let now = DateTime::from_timestamp(vector.at, 0).unwrap();
    row.scheme.verify(&Incoming { headers: &headers, body }, &secrets, now)
}

#[test]
fn vectors_verify_for_their_body_only() {
    for vector in VECTORS {
        let row = row(vector.sender);
        let verification = verify(vector, &row, vector.body.as_bytes());
        assert!(
            matches!(verification, Verification::Verified { .. }),
            "{}: {verification:?}",
            vector.sender
        );
        let other = [vector.body.as_bytes(), b" "].concat();
        let verification = verify(vector, &row, &other);
        assert_eq!(verification, Verification::Invalid(Reason::Mismatch), "{}", vector.sender);
    }
}

#[test]
fn standard_webhooks_have_id_and_time() {
    let vector = VECTORS.iter().find(|vector| vector.sender == "gemini").unwrap();
    assert_eq!(
        verify(vector, &row("gemini"), vector.body.as_bytes()),
        Verification::Verified {
            replay_id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            signed_at: DateTime::from_timestamp(1_614_265_330, 0),
        }
    );
}

/// RFC 4231 §4.2, §4.3 and §4.7 and RFC 2202 §3: the tests' own HMAC is one.
#[test]
fn sender_hmac_matches_vectors() {
    use crate::sender::hmac;
    let jefe = |hash| hex::encode(hmac(hash, b"Jefe", b"what do ya want for nothing?"));
    assert_eq!(jefe("sha1"), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    assert_eq!(jefe("sha256"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(
        jefe("sha384"),
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
    );
    assert_eq!(
        jefe("sha512"),
        concat!(
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554",
            "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        )
    );
    let long =
        hmac("sha256", &[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
    assert_eq!(
        hex::encode(long),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}
