//! Dead letters, and the operator's command for them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::TestStack;

impl TestStack {
    /// Sends a message to the dead-letter queue, where SQS moves a message after its last
    /// receive.
    ///
    /// # Errors
    /// When the queue does not answer.
    pub async fn add_dead_letter(&self, body: &str) -> Result<()> {
        let send = self.sqs.send_message().queue_url(&self.description.dead_letter_queue_url);
        send.message_body(body).send().await?;
        Ok(())
    }

    /// Runs `relay dlq` on the stack with an operator's credentials, and returns its output.
    ///
    /// # Errors
    /// When `relay` was not built, or when it fails.
    pub fn relay_dlq(&self, arguments: &[&str]) -> Result<String> {
        // It is in the parent of the folder with this test's own binary.
        let relay = std::env::current_exe()?.ancestors().nth(2).map(|target| target.join("relay"));
        let relay = relay.filter(|relay| relay.exists());
        let relay = relay.context("`relay` is not built; run `cargo build --workspace`")?;
        let output = Command::new(relay)
            .arg("dlq")
            .args(arguments)
            .args(["--stack", &self.description.stack_name])
            .env_clear()
            .env("AWS_ENDPOINT_URL", &self.description.aws_endpoint)
            .env("AWS_ATTEMPT_SECONDS", "60")
            .env("AWS_REGION", &self.description.region)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "relay dlq {arguments:?}: {stderr}");
        Ok(String::from_utf8(output.stdout)?)
    }
}
