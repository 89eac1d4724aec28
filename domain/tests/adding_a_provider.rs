//! `docs/adding-a-provider.md`, followed to the letter: its example is a provider, and the
//! conversation in it goes as it says.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use domain::provider::ProviderSpec;
use domain::provider::catalogue::{Adjustments, Catalogue};
use domain::provider::conversation::Conversation;

const GUIDE: &str = include_str!("../../docs/adding-a-provider.md");

/// The fenced JSON blocks of the guide: a spec, and a conversation.
fn blocks() -> Vec<&'static str> {
    let fenced = GUIDE.split("```json\n").skip(1);
    fenced.map(|rest| rest.split_once("\n```").unwrap().0).collect()
}

#[test]
fn guide_example_replays_as_documented() {
    let [spec, conversation] = blocks()[..] else { panic!("the guide has two blocks") };
    let spec = ProviderSpec::parse("reelworks.json", spec).unwrap();
    let conversation = Conversation::parse("the guide", conversation).unwrap();

    // The conversation has times of its own.
    let replies = conversation.replay(&spec, DateTime::<Utc>::UNIX_EPOCH).unwrap();

    let wrong: Vec<_> = replies
        .iter()
        .flat_map(|reply| {
            let about = reply.about;
            reply.mismatches.iter().map(move |wrong| format!("{about}: {}", wrong.sentence()))
        })
        .collect();
    assert_eq!(wrong, [""; 0]);
    let about: BTreeSet<_> = replies.iter().map(|reply| reply.about).collect();
    assert_eq!(about, BTreeSet::from(["submit", "status", "list", "cancel", "callback"]));
}

#[test]
fn spec_in_folder_ships() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../providers");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file != "schema.json")
        .collect();
    let catalogue = Catalogue::load(&Adjustments::default()).unwrap();
    let shipped: BTreeSet<String> = catalogue.names().map(|name| format!("{name}.json")).collect();
    assert_eq!(shipped, files);
}
