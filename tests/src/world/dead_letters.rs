//! Dead letters, and the operator's command that looks after them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::World;

impl World {
    /// Puts a message among the delivery queue's dead letters, as SQS does after its last
    /// receive.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn bury(&self, body: &str) -> Result<()> {
        let send = self.sqs.send_message().queue_url(&self.stack.dead_letter_queue_url);
        send.message_body(body).send().await?;
        Ok(())
    }

    /// Runs `relay dlq` on the stack, as an operator who is signed in does; answers what it
    /// printed.
    ///
    /// # Errors
    /// When it was not built, or fails.
    pub fn relay_dlq(&self, arguments: &[&str]) -> Result<String> {
        // Beside the folder of this test's own binary.
        let relay = std::env::current_exe()?.ancestors().nth(2).map(|target| target.join("relay"));
        let relay = relay.filter(|relay| relay.exists());
        let relay = relay.context("`relay` is not built; run `cargo build --workspace`")?;
        let output = Command::new(relay)
            .arg("dlq")
            .args(arguments)
            .args(["--stack", &self.stack.stack_name])
            .env_clear()
            .env("AWS_ENDPOINT_URL", &self.stack.aws_endpoint)
            .env("AWS_ATTEMPT_SECONDS", "60")
            .env("AWS_REGION", &self.stack.region)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "relay dlq {arguments:?}: {complaint}");
        Ok(String::from_utf8(output.stdout)?)
    }
}
