//! The number of shards, and the most that there ever was.

use aws_in_memory::InMemoryAws;
use shared::shards::Shards;

#[tokio::test]
async fn shards_lowered_are_remembered() {
    let aws = InMemoryAws::new(&[]);
    let store = aws.store();
    assert_eq!(Shards::new(4).most(&store).await.unwrap(), 4);
    for (current, most) in [(1, 4), (8, 8), (2, 8), (0, 8)] {
        let shards = Shards::new(current);
        assert_eq!(shards.most(&store).await.unwrap(), most, "{current}");
        assert_eq!(shards.current(), current.max(1));
    }
}

#[tokio::test]
async fn shards_are_read_once_and_written_when_raised() {
    let aws = InMemoryAws::new(&[]);
    let (store, shards) = (aws.store(), Shards::new(2));
    for _ in 0..3 {
        shards.most(&store).await.unwrap();
    }
    assert_eq!(aws.calls(), ["GetItem", "PutItem"]);
    Shards::new(2).most(&store).await.unwrap();
    assert_eq!(aws.calls().len(), 3, "an equal number is not written");
    assert!(Shards::new(2).most(&InMemoryAws::without_table(&[]).store()).await.is_err());
}
