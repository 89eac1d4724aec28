//! Reading and writing [`Endpoint`]s.

use domain::endpoint::Endpoint;

use super::{Committed, Store, StoreError, committed, endpoint_item, key, unavailable};

/// The consistency of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Eventually consistent; costs half.
    Eventual,
    /// Strongly consistent: with all completed writes.
    Strong,
}

impl Store {
    /// The endpoint at `url`; one without an item has the default state.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn endpoint(
        &self,
        url: &str,
        consistency: Consistency,
    ) -> Result<Endpoint, StoreError> {
        let doing = "read an endpoint";
        let unknown = Endpoint::unknown(url);
        let key = key(&endpoint_item::pk(&unknown.id), endpoint_item::SK);
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key));
        let output = get.consistent_read(consistency == Consistency::Strong).send().await;
        let item = output.map_err(|error| unavailable(doing, error.into_service_error()))?.item;
        item.map_or(Ok(unknown), endpoint_item::decode)
    }

    /// Stores a changed endpoint over its previous version.
    ///
    /// # Errors
    /// When DynamoDB does not confirm the write; the change may be stored all the same.
    pub async fn commit_endpoint(
        &self,
        before: &Endpoint,
        after: &Endpoint,
    ) -> Result<Committed<Endpoint>, StoreError> {
        let item = endpoint_item::encode(after, self.retention)?;
        let doing = "store an endpoint's change";
        let put = match before.version {
            0 => self.put(item, "attribute_not_exists(pk)", None, doing).await?,
            _ => self.put(item, "v = :v", Some(after.version), doing).await?,
        };
        committed(put, endpoint_item::decode)
    }
}
