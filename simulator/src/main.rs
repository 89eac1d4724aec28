//! `simulator`: prints its addresses as one line of JSON, and serves until its standard input
//! ends, so that it never outlives its parent.

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use http::Uri;
use serde_json::json;
use simulator::{AwsLedger, Simulator, SimulatorSettings};
use tokio::sync::oneshot;

/// The providers' APIs, a webhook receiver and a ledger of AWS requests.
#[derive(Parser)]
struct Flags {
    /// The address for providers, receivers and the control API.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// The AWS endpoint behind the proxy; without it there is no proxy.
    #[arg(long)]
    aws_upstream: Option<Uri>,

    /// The address of the proxy.
    #[arg(long, default_value = "127.0.0.1:0")]
    aws_listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let aws = flags.aws_upstream.map(|upstream| AwsLedger { listen: flags.aws_listen, upstream });
    let simulator = Simulator::start(SimulatorSettings { listen: flags.listen, aws }).await?;

    let ready = json!({"url": simulator.url(), "aws": simulator.aws_url()});
    writeln!(io::stdout(), "{ready}").context("cannot print the addresses")?;
    end_of_input().await;
    Ok(())
}

/// Waits in a thread, because a read of standard input cannot be cancelled and the runtime would
/// wait for it.
async fn end_of_input() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // An error counts as the end of the input.
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        drop(ended);
    });
    drop(end.await);
}
