use super::*;

#[test]
fn spec_shipped_is_valid() {
    let catalogue = Catalogue::load(&Adjustments::default()).unwrap();
    let names: Vec<_> = catalogue.names().map(ProviderName::as_str).collect();
    assert!(names.contains(&"zvid") && names.contains(&"shotstack"), "{names:?}");
}

#[test]
fn catalogue_takes_environments_and_base_urls() {
    let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let shotstack = ProviderName::parse("shotstack").unwrap();

    let environments = one("shotstack", "stage");
    let stage = Catalogue::load(&Adjustments { environments, ..Adjustments::default() }).unwrap();
    let url = stage.get(&shotstack).unwrap().base_url.as_str();
    assert_eq!(url, "https://api.shotstack.io/edit/stage");

    let wrong = Adjustments { environments: one("shotstack", "moon"), ..Default::default() };
    let error = Catalogue::load(&wrong).unwrap_err().to_string();
    assert_eq!(error, "shotstack has no environment `moon`");

    let moved = |url: &str, policy| {
        let base_urls = BTreeMap::from([("shotstack".to_owned(), Url::parse(url).unwrap())]);
        Catalogue::load(&Adjustments { base_urls, policy, ..Default::default() })
    };
    let error = moved("http://127.0.0.1:4010", TargetPolicy::public()).unwrap_err().to_string();
    assert_eq!(error, "shotstack: the setting PROVIDER_BASE_URLS is not https");
    assert!(moved("http://127.0.0.1:4010", TargetPolicy::local_use()).is_ok());
}

/// The spec that an adjustment is for may be put later.
#[test]
fn catalogue_ignores_adjustments_of_unknown_providers() {
    let adjustments = adjusted(&[("no-such-provider", "x")]);
    assert_eq!(Catalogue::load(&adjustments).unwrap().names().count(), SHIPPED.len());
    assert_eq!(adjustments.names().collect::<Vec<_>>(), ["no-such-provider"]);
}

#[test]
fn own_spec_is_checked_with_the_settings() {
    let zvid = shipped("zvid");
    let checked = |adjustments: &Adjustments, json: &str| {
        let checked = adjustments.check(&own("zvid", json));
        checked.map(|provider| provider.base_url.to_string()).map_err(|it| it.to_string())
    };
    let none = Adjustments::default();
    assert_eq!(checked(&none, &zvid).as_deref(), Ok("https://api.zvid.io/"));
    // Also in an environment that is not used.
    for url in ["https://10.0.0.1", "https://render.internal", "https://169.254.169.254"] {
        let stage = zvid.replace("\"default\":", &format!("\"stage\": \"{url}\", \"default\":"));
        let error = checked(&none, &stage).unwrap_err();
        assert!(error.starts_with("/specs/zvid: baseUrls.stage "), "{error}");
        let default = zvid.replace("https://api.zvid.io", url);
        let error = checked(&none, &default).unwrap_err();
        assert!(error.contains(": baseUrls.default "), "{error}");
    }
    let error = checked(&adjusted(&[("zvid", "moon")]), &zvid).unwrap_err();
    assert_eq!(error, "/specs/zvid: zvid has no environment `moon`");
}

fn own(name: &str, json: &str) -> OwnSpec {
    OwnSpec { file: format!("/specs/{name}"), name: name.to_owned(), json: json.to_owned() }
}

fn shipped(name: &str) -> String {
    let file = format!("{name}.json");
    SHIPPED.iter().find(|(other, _)| *other == file).unwrap().1.to_owned()
}

fn adjusted(environments: &[(&str, &str)]) -> Adjustments {
    let pairs = environments.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Adjustments { environments: pairs.collect(), ..Adjustments::default() }
}

#[test]
fn catalogue_own_spec_replaces_shipped_one() {
    let acme = shipped("zvid")
        .replace("\"zvid\"", "\"acme\"")
        .replace("\"default\":", "\"stage\": \"https://stage.acme.example\", \"default\":");
    let zvid = shipped("zvid").replace("https://api.zvid.io", "https://eu.api.zvid.io");
    let (catalogue, left_out) = Catalogue::load_with(
        &adjusted(&[("acme", "stage")]),
        &[own("acme", &acme), own("zvid", &zvid)],
    )
    .unwrap();
    assert!(left_out.is_empty(), "{left_out:?}");
    let url = |name: &str| {
        let name = ProviderName::parse(name).unwrap();
        catalogue.get(&name).unwrap().base_url.to_string()
    };
    assert_eq!(url("acme"), "https://stage.acme.example/");
    assert_eq!(url("zvid"), "https://eu.api.zvid.io/");
    assert_eq!(catalogue.names().count(), SHIPPED.len() + 1);
}

#[test]
fn catalogue_leaves_out_wrong_spec() {
    let other_name = shipped("shotstack");
    let wrong = [
        own("broken", "{"),
        own("shotstack", &other_name.replace("https://", "http://")),
        own("acme", &other_name),
        own("zvid", &shipped("zvid")),
    ];
    // An adjustment that fits nothing else is no reason to stop either.
    let adjustments = adjusted(&[("acme", "stage"), ("zvid", "moon")]);
    let (catalogue, left_out) = Catalogue::load_with(&adjustments, &wrong).unwrap();
    let reasons: Vec<_> = left_out.iter().map(|left_out| left_out.reason.to_string()).collect();
    assert_eq!(
        reasons,
        [
            "/specs/broken: EOF while parsing an object at line 1 column 1",
            "/specs/shotstack: baseUrls.default is not https",
            "/specs/acme: the spec calls itself `shotstack`",
            "/specs/zvid: zvid has no environment `moon`",
        ]
    );
    let shotstack = ProviderName::parse("shotstack").unwrap();
    let kept = catalogue.get(&shotstack).unwrap();
    assert_eq!(kept.base_url.scheme(), "https", "the shipped one stays");
}

/// Whether it is replaced or not: one setting must not disable the other providers.
#[test]
fn catalogue_leaves_out_unfit_shipped_spec() {
    let adjustments = adjusted(&[("shotstack", "v2")]);
    let shotstack = ProviderName::parse("shotstack").unwrap();
    let (catalogue, left_out) = Catalogue::load_with(&adjustments, &[]).unwrap();
    assert!(catalogue.get(&shotstack).is_none());
    assert_eq!(catalogue.names().count(), SHIPPED.len() - 1);
    let reasons = left_out.iter().map(|it| (it.name.as_str(), it.reason.to_string()));
    let reason = "shotstack has no environment `v2`".to_owned();
    assert_eq!(reasons.collect::<Vec<_>>(), [("shotstack", reason)]);

    let v2 = "\"v2\": \"https://v2.example\", \"default\":";
    let v2 = shipped("shotstack").replacen("\"default\":", v2, 1);
    let own = [own("shotstack", &v2)];
    let (catalogue, left_out) = Catalogue::load_with(&adjustments, &own).unwrap();
    assert!(left_out.is_empty(), "{left_out:?}");
    assert_eq!(catalogue.names().count(), SHIPPED.len());
}

#[test]
fn spec_that_cannot_be_sent_is_refused() {
    for (right, wrong, expected) in [
        ("x-api-key", "x api key", "x: headers: `x api key` is not the name of a header"),
        ("{apiKey}", "{apiKey}\\n", "x: headers.x-api-key has a character that no header has"),
        (
            "/api/jobs/{id}",
            "api/jobs/{id}",
            "x: the path `api/jobs/{id}` must begin with `/` and have neither `?` nor `#`",
        ),
        (
            "/api/render/api-key",
            "/api/render?key=1",
            "x: the path `/api/render?key=1` must begin with `/` and have neither `?` nor `#`",
        ),
        (
            "\"x-api-key\"",
            "\"X-Api-Key\": \"{apiKey}\", \"x-api-key\"",
            "x: headers has `X-Api-Key` twice",
        ),
        (
            "\"x-api-key\"",
            "\"host\": \"x\", \"x-api-key\"",
            "x: headers: `host` is not a provider's to choose",
        ),
    ] {
        let error = ProviderSpec::parse("x", &shipped("zvid").replace(right, wrong));
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
