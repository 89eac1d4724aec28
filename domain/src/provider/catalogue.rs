//! The providers of an installation: those that ship with us, and its own.

use std::collections::BTreeMap;

use url::Url;

use super::spec::{ProviderSpec, SpecError};
use crate::id::ProviderName;

/// File name and content of every spec in `providers/`, embedded when this crate is built.
const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/providers.rs"));

/// All providers of this installation, by name, each with the base URL it is reached at.
#[derive(Clone, Debug)]
pub struct Catalogue(BTreeMap<ProviderName, Provider>);

/// A provider as this installation reaches it.
#[derive(Clone, Debug)]
pub struct Provider {
    /// What it is like.
    pub spec: ProviderSpec,
    /// The base of its API. Its key goes to no other host.
    pub base_url: Url,
}

/// What an installation says of its providers; both parts are usually empty.
#[derive(Clone, Debug, Default)]
pub struct Adjustments {
    /// The environment to use instead of `default`, by provider.
    pub environments: BTreeMap<String, String>,
    /// A base URL to use instead of the spec's, by provider.
    pub base_urls: BTreeMap<String, Url>,
}

/// A spec of the installation's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSpec {
    /// What it is called in errors.
    pub file: String,
    /// The name that the provider in it must have.
    pub name: String,
    /// The spec, as JSON.
    pub json: String,
}

/// A spec of the installation's own that is not in its catalogue.
#[derive(Debug)]
pub struct LeftOut {
    /// The provider it would have been.
    pub name: String,
    /// Why it is not; names the file.
    pub reason: CatalogueError,
}

/// Why the catalogue cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A spec is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The spec's name and its file's differ.
    #[error("{file}: the spec calls itself `{name}`")]
    Name {
        /// The file.
        file: String,
        /// The name in it.
        name: ProviderName,
    },
    /// An adjustment does not fit a spec of the installation's own.
    #[error("{file}: {reason}")]
    Unfit {
        /// The file.
        file: String,
        /// What does not fit.
        reason: Box<CatalogueError>,
    },
    /// An adjustment names a provider that there is not.
    #[error("there is no provider `{0}`")]
    NoProvider(String),
    /// An adjustment names an environment that the provider has not.
    #[error("{provider} has no environment `{environment}`")]
    NoEnvironment {
        /// The provider.
        provider: String,
        /// The environment asked for.
        environment: String,
    },
}

impl Catalogue {
    /// The shipped providers, adjusted.
    ///
    /// # Errors
    /// When a spec is invalid, or an adjustment fits nothing.
    pub fn load(adjustments: &Adjustments) -> Result<Self, CatalogueError> {
        Self::load_with(adjustments, &[]).map(|(catalogue, _)| catalogue)
    }

    /// The shipped providers and the installation's own, adjusted, and those of its own that
    /// are left out because they are wrong: one bad document must not take the others down.
    ///
    /// A spec of its own replaces the shipped one of its name, so that nobody has to wait for
    /// a release when a provider changes. One that is left out replaces nothing.
    ///
    /// # Errors
    /// When a shipped spec is invalid, or an adjustment fits nothing, not even what is left
    /// out.
    pub fn load_with(
        adjustments: &Adjustments,
        own: &[OwnSpec],
    ) -> Result<(Self, Vec<LeftOut>), CatalogueError> {
        let mut providers = BTreeMap::new();
        for (file, json) in SHIPPED {
            let spec = named(file, file.trim_end_matches(".json"), json)?;
            // Its own spec may be what has the environment that the adjustment names.
            let replaced = own.iter().any(|own| own.name == spec.name.as_str());
            match base_url(&spec, adjustments) {
                Ok(base_url) => {
                    providers.insert(spec.name.clone(), Provider { spec, base_url });
                }
                Err(_) if replaced => {}
                Err(error) => return Err(error),
            }
        }
        let mut left_out = Vec::new();
        for OwnSpec { file, name, json } in own {
            let unfit =
                |reason| CatalogueError::Unfit { file: file.clone(), reason: Box::new(reason) };
            let provider = named(file, name, json).and_then(|spec| {
                let base_url = base_url(&spec, adjustments).map_err(unfit)?;
                Ok(Provider { spec, base_url })
            });
            match provider {
                Ok(provider) => {
                    providers.insert(provider.spec.name.clone(), provider);
                }
                Err(reason) => left_out.push(LeftOut { name: name.clone(), reason }),
            }
        }
        let known = |name: &str| {
            providers.keys().any(|known| known.as_str() == name)
                || left_out.iter().any(|left_out| left_out.name == name)
        };
        let mut adjusted = adjustments.environments.keys().chain(adjustments.base_urls.keys());
        if let Some(unknown) = adjusted.find(|name| !known(name)) {
            return Err(CatalogueError::NoProvider(unknown.clone()));
        }
        Ok((Self(providers), left_out))
    }

    /// The provider of that name.
    #[must_use]
    pub fn get(&self, name: &ProviderName) -> Option<&Provider> {
        self.0.get(name)
    }

    /// The names of all providers, sorted.
    pub fn names(&self) -> impl Iterator<Item = &ProviderName> {
        self.0.keys()
    }
}

fn named(file: &str, name: &str, json: &str) -> Result<ProviderSpec, CatalogueError> {
    let spec = ProviderSpec::parse(file, json)?;
    if spec.name.as_str() == name {
        Ok(spec)
    } else {
        Err(CatalogueError::Name { file: file.to_owned(), name: spec.name })
    }
}

fn base_url(spec: &ProviderSpec, adjustments: &Adjustments) -> Result<Url, CatalogueError> {
    if let Some(url) = adjustments.base_urls.get(spec.name.as_str()) {
        return Ok(url.clone());
    }
    let environment =
        adjustments.environments.get(spec.name.as_str()).map_or("default", String::as_str);
    spec.base_urls.get(environment).cloned().ok_or_else(|| CatalogueError::NoEnvironment {
        provider: spec.name.to_string(),
        environment: environment.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_spec_is_valid_and_named_like_its_file() {
        let catalogue = Catalogue::load(&Adjustments::default()).unwrap();
        let names: Vec<_> = catalogue.names().map(ProviderName::as_str).collect();
        assert!(names.contains(&"zvid") && names.contains(&"shotstack"), "{names:?}");
    }

    #[test]
    fn an_installation_chooses_environments_and_base_urls() {
        let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let shotstack = ProviderName::parse("shotstack").unwrap();

        let environments = one("shotstack", "stage");
        let stage =
            Catalogue::load(&Adjustments { environments, ..Adjustments::default() }).unwrap();
        let url = stage.get(&shotstack).unwrap().base_url.as_str();
        assert_eq!(url, "https://api.shotstack.io/edit/stage");

        let wrong = Adjustments { environments: one("shotstack", "moon"), ..Default::default() };
        let error = Catalogue::load(&wrong).unwrap_err().to_string();
        assert_eq!(error, "shotstack has no environment `moon`");

        let base_urls = BTreeMap::from([("nobody".to_owned(), Url::parse("http://x").unwrap())]);
        let error = Catalogue::load(&Adjustments { base_urls, ..Default::default() }).unwrap_err();
        assert_eq!(error.to_string(), "there is no provider `nobody`");
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
    fn an_installations_own_spec_is_added_or_replaces_the_shipped_one() {
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
    fn a_wrong_spec_is_left_out_with_its_reason_and_takes_nothing_down() {
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
        assert!(Catalogue::load_with(&adjusted(&[("nobody", "x")]), &wrong).is_err());
    }

    #[test]
    fn what_could_not_be_sent_is_refused_when_the_spec_is_loaded() {
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
}
