//! The statistics of how long a provider's renders take.

use domain::id::ProviderName;
use domain::polling::Statistics;
use serde::{Deserialize, Serialize};

use super::{Committed, Item, Store, StoreError, committed, corrupt};

const SK: &str = "durations";

/// The statistics of a provider's renders as they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredStatistics {
    /// The observed durations.
    pub statistics: Statistics,
    /// Counts writes, from 1.
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
struct StatisticsItem {
    pk: String,
    sk: String,
    v: u64,
    #[serde(flatten)]
    seen: Statistics,
}

impl Store {
    /// The statistics of a provider's renders.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn duration_statistics(
        &self,
        provider: &ProviderName,
    ) -> Result<Option<StoredStatistics>, StoreError> {
        let pk = pk(provider);
        let item = self.get(&pk, SK, "read how long renders take").await?;
        item.map(decode).transpose()
    }

    /// Stores the statistics of a provider's renders over their previous version.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn put_duration_statistics(
        &self,
        provider: &ProviderName,
        model: &StoredStatistics,
    ) -> Result<Committed<StoredStatistics>, StoreError> {
        let item = encode(provider, model)?;
        let put = self.put_version(item, model.version, "store how long renders take").await?;
        committed(put, decode)
    }
}

fn pk(provider: &ProviderName) -> String {
    format!("durations#{provider}")
}

fn encode(provider: &ProviderName, model: &StoredStatistics) -> Result<Item, StoreError> {
    let item = StatisticsItem {
        pk: pk(provider),
        sk: SK.into(),
        v: model.version,
        seen: model.statistics,
    };
    serde_dynamo::to_item(item).map_err(|error| corrupt("durations", error))
}

fn decode(item: Item) -> Result<StoredStatistics, StoreError> {
    let item: StatisticsItem =
        serde_dynamo::from_item(item).map_err(|error| corrupt("durations", error))?;
    Ok(StoredStatistics { statistics: item.seen, version: item.v })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn statistics_round_trip() {
        let statistics = Statistics::single(Duration::from_millis(7_321))
            .merge(Statistics::single(Duration::from_millis(60_001)));
        let model = StoredStatistics { statistics, version: 3 };
        let item = encode(&ProviderName::parse("zvid").unwrap(), &model).unwrap();
        assert_eq!(decode(item).unwrap(), model);
        assert!(decode(Item::new()).is_err());
    }
}
