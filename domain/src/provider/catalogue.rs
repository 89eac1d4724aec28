//! The providers of an installation: those that ship with the project, and its own.

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
    /// The spec.
    pub spec: ProviderSpec,
    /// The base of its API. Its key goes to no other host.
    pub base_url: Url,
}

/// The adjustments of an installation to its providers; both parts are usually empty.
#[derive(Clone, Debug, Default)]
pub struct Adjustments {
    /// The environment to use instead of `default`, by provider.
    pub environments: BTreeMap<String, String>,
    /// A base URL to use instead of the spec's, by provider.
    pub base_urls: BTreeMap<String, Url>,
}

/// A spec that an installation supplies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSpec {
    /// Its name in errors.
    pub file: String,
    /// The name that the provider in it must have.
    pub name: String,
    /// The spec, as JSON.
    pub json: String,
}

/// A spec of an installation that was left out of its catalogue.
#[derive(Debug)]
pub struct LeftOut {
    /// The name of its provider.
    pub name: String,
    /// The error, which names the file.
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
    /// An adjustment names an unknown provider.
    #[error("there is no provider `{0}`")]
    NoProvider(String),
    /// An adjustment names an unknown environment of a provider.
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

    /// The shipped providers and those of the installation, adjusted, and the specs that were
    /// left out because they are invalid: one bad document must not disable the others.
    ///
    /// A spec of the installation replaces the shipped one of the same name, so that a change of
    /// a provider does not need a release. A spec that is left out replaces nothing.
    ///
    /// # Errors
    /// When a shipped spec is invalid, or an adjustment fits no spec, not even one that was left
    /// out.
    pub fn load_with(
        adjustments: &Adjustments,
        own: &[OwnSpec],
    ) -> Result<(Self, Vec<LeftOut>), CatalogueError> {
        let mut providers = BTreeMap::new();
        for (file, json) in SHIPPED {
            let spec = named(file, file.trim_end_matches(".json"), json)?;
            // The environment of the adjustment may exist only in the spec that was left out.
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

    /// The provider with this name.
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
mod tests;
