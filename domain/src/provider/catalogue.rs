//! The providers of an installation: those that ship with the project, and its own.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use url::Url;

use super::spec::{ProviderSpec, SpecError};
use crate::address::{BaseUrlError, TargetPolicy, check_base_url};
use crate::id::ProviderName;

/// File name and content of every spec in `providers/`, embedded when this crate is built.
const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/providers.rs"));

/// All providers of this installation, by name, each with the base URL it is reached at.
#[derive(Clone, Debug)]
pub struct Catalogue(BTreeMap<ProviderName, Arc<Provider>>);

/// A provider as this installation reaches it.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The spec.
    pub spec: ProviderSpec,
    /// The base of its API.
    pub base_url: Url,
}

impl Provider {
    /// The same provider where a job was submitted to, which may be another place than new jobs
    /// are submitted to. The key still goes only to hosts that are stored with it.
    #[must_use]
    pub fn at(self: &Arc<Self>, submitted_to: &Url) -> Arc<Self> {
        match self.base_url == *submitted_to {
            true => Arc::clone(self),
            // Rare: the place changed while the job is under way.
            false => Arc::new(Self { spec: self.spec.clone(), base_url: submitted_to.clone() }),
        }
    }
}

/// The adjustments of an installation to its providers; the first two are usually empty.
#[derive(Clone, Debug, Default)]
pub struct Adjustments {
    /// The environment to use instead of `default`, by provider.
    pub environments: BTreeMap<String, String>,
    /// A base URL to use instead of the spec's, by provider.
    pub base_urls: BTreeMap<String, Url>,
    /// Which hosts a base URL may have.
    pub policy: TargetPolicy,
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

/// A spec that was left out of the catalogue.
#[derive(Debug)]
pub struct LeftOut {
    /// The name of its provider.
    pub name: String,
    /// The error, which names the file or the provider.
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
    /// A base URL is not one for a provider.
    #[error("{file}: {place} {reason}")]
    BaseUrl {
        /// The file, or the provider.
        file: String,
        /// The member of the spec, or the setting, that has the URL.
        place: String,
        /// What is wrong with the URL.
        reason: BaseUrlError,
    },
    /// An adjustment names an unknown environment of a provider.
    #[error("{provider} has no environment `{environment}`")]
    NoEnvironment {
        /// The provider.
        provider: String,
        /// The environment asked for.
        environment: String,
    },
}

impl Adjustments {
    /// The providers that they name. Not all of them may exist: a spec is put after the stack was
    /// deployed, and may be removed before.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.environments.keys().chain(self.base_urls.keys()).map(String::as_str)
    }

    /// A spec of the installation as it would be used. All its base URLs must be allowed, also
    /// those of other environments.
    ///
    /// # Errors
    /// When the spec is not valid, or does not fit the adjustments.
    pub fn check(&self, own: &OwnSpec) -> Result<Provider, CatalogueError> {
        let spec = own.parse()?;
        for (environment, url) in &spec.base_urls {
            check_base_url(url, &self.policy).map_err(|reason| CatalogueError::BaseUrl {
                file: own.file.clone(),
                place: format!("baseUrls.{environment}"),
                reason,
            })?;
        }
        self.apply(&own.file, spec)
    }

    /// Whether the shipped spec of this name fits, if there is one.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_shipped(&self, name: &ProviderName) -> Result<(), CatalogueError> {
        match shipped_specs()?.iter().find(|spec| spec.name == *name) {
            Some(spec) => base_url(spec, self).map(drop),
            None => Ok(()),
        }
    }

    fn apply(&self, file: &str, spec: ProviderSpec) -> Result<Provider, CatalogueError> {
        let unfit = |reason| CatalogueError::Unfit { file: file.into(), reason: Box::new(reason) };
        let base_url = base_url(&spec, self).map_err(unfit)?;
        Ok(Provider { spec, base_url })
    }
}

impl OwnSpec {
    fn parse(&self) -> Result<ProviderSpec, CatalogueError> {
        named(&self.file, &self.name, &self.json)
    }
}

impl Catalogue {
    /// The shipped providers, adjusted.
    ///
    /// # Errors
    /// When a spec is invalid, or an adjustment does not fit it.
    pub fn load(adjustments: &Adjustments) -> Result<Self, CatalogueError> {
        let (catalogue, left_out) = Self::load_with(adjustments, &[])?;
        left_out.into_iter().next().map_or(Ok(catalogue), |left_out| Err(left_out.reason))
    }

    /// The shipped providers and those of the installation, adjusted, and the specs that were
    /// left out because they are invalid, or because an adjustment does not fit them: one bad
    /// document or setting must not disable the other providers.
    ///
    /// A spec of the installation replaces the shipped one of the same name, so that a change of
    /// a provider does not need a release. A spec that is left out replaces nothing.
    ///
    /// # Errors
    /// When a shipped spec is invalid.
    pub fn load_with(
        adjustments: &Adjustments,
        own: &[OwnSpec],
    ) -> Result<(Self, Vec<LeftOut>), CatalogueError> {
        let mut providers = BTreeMap::new();
        let mut left_out = Vec::new();
        for spec in shipped_specs()? {
            let spec = spec.clone();
            // The environment of the adjustment may exist only in the installation's own spec.
            let replaced = own.iter().any(|own| own.name == spec.name.as_str());
            match base_url(&spec, adjustments) {
                Ok(base_url) => {
                    providers.insert(spec.name.clone(), Arc::new(Provider { spec, base_url }));
                }
                Err(_) if replaced => {}
                Err(reason) => left_out.push(LeftOut { name: spec.name.to_string(), reason }),
            }
        }
        for own in own {
            match own.parse().and_then(|spec| adjustments.apply(&own.file, spec)) {
                Ok(provider) => {
                    providers.insert(provider.spec.name.clone(), Arc::new(provider));
                }
                Err(reason) => left_out.push(LeftOut { name: own.name.clone(), reason }),
            }
        }
        Ok((Self(providers), left_out))
    }

    /// The provider with this name.
    #[must_use]
    pub fn get(&self, name: &ProviderName) -> Option<&Arc<Provider>> {
        self.0.get(name)
    }

    /// The document of a shipped spec.
    #[must_use]
    pub fn shipped(name: &ProviderName) -> Option<&'static str> {
        let is_of = |file: &str| file.strip_suffix(".json") == Some(name.as_str());
        SHIPPED.iter().find(|(file, _)| is_of(file)).map(|(_, json)| *json)
    }

    /// The names of all providers, sorted.
    pub fn names(&self) -> impl Iterator<Item = &ProviderName> {
        self.0.keys()
    }
}

/// The shipped specs, which are read once in a process: each start and each change of a spec
/// needs them.
fn shipped_specs() -> Result<&'static [ProviderSpec], CatalogueError> {
    static READ: OnceLock<Vec<ProviderSpec>> = OnceLock::new();
    if let Some(specs) = READ.get() {
        return Ok(specs);
    }
    let specs =
        SHIPPED.iter().map(|(file, json)| named(file, file.trim_end_matches(".json"), json));
    let specs = specs.collect::<Result<_, _>>()?;
    Ok(READ.get_or_init(|| specs))
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
    let (url, place) = match adjustments.base_urls.get(spec.name.as_str()) {
        Some(url) => (url, "the setting PROVIDER_BASE_URLS".to_owned()),
        None => {
            let environment = adjustments.environments.get(spec.name.as_str());
            let environment = environment.map_or("default", String::as_str);
            let url = spec.base_urls.get(environment);
            let url = url.ok_or_else(|| CatalogueError::NoEnvironment {
                provider: spec.name.to_string(),
                environment: environment.to_owned(),
            })?;
            (url, format!("baseUrls.{environment}"))
        }
    };
    check_base_url(url, &adjustments.policy).map_err(|reason| CatalogueError::BaseUrl {
        file: spec.name.to_string(),
        place,
        reason,
    })?;
    Ok(url.clone())
}

#[cfg(test)]
mod tests;
