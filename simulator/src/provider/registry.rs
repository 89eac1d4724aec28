//! The list of providers.

use super::ProviderApi;
use super::json2video::Json2Video;
use super::renderio::RenderIo;
use super::shotstack::Shotstack;
use super::viralsync::ViralSync;
use super::zvid::Zvid;

static ALL: [&dyn ProviderApi; 5] = [&Json2Video, &RenderIo, &Shotstack, &ViralSync, &Zvid];

pub(crate) fn named(name: &str) -> Option<&'static dyn ProviderApi> {
    ALL.into_iter().find(|provider| provider.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{PROVIDER_OPTIONS, Scenario};

    #[test]
    fn provider_options_have_a_provider() {
        let had: Vec<&str> = ALL.iter().flat_map(|it| it.provider_options()).copied().collect();
        for option in PROVIDER_OPTIONS {
            assert!(had.contains(&option), "no provider has {option}");
        }
        for option in had {
            assert!(PROVIDER_OPTIONS.contains(&option), "{option} is not special");
        }
    }

    #[test]
    fn provider_options_are_scenario_options() {
        // No option accepts this value: the error of a known option is about the value, that of an
        // unknown one about its name.
        for option in PROVIDER_OPTIONS {
            let error = serde_json::from_str::<Scenario>(&format!(r#"{{"{option}":[[]]}}"#));
            assert!(!error.unwrap_err().to_string().contains("unknown field"), "{option}");
        }
    }
}
