//! Changing the stack's parameters while it runs, as `sam deploy --parameter-overrides` does.

use ::http::Method;
use anyhow::{Context, Result, bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::TestStack;
use crate::eventually::eventually;

impl TestStack {
    /// Gives a parameter of the stack another value, leaves the others, and waits until the stack
    /// is updated.
    ///
    /// # Errors
    /// When the update fails, or is not over in time.
    pub async fn set_parameter(&self, name: &str, value: &str) -> Result<()> {
        let described = self.cloudformation(&[("Action", "DescribeStacks")]).await?;
        let mut fields = vec![
            ("Action".to_owned(), "UpdateStack".to_owned()),
            ("UsePreviousTemplate".to_owned(), "true".to_owned()),
            ("Capabilities.member.1".to_owned(), "CAPABILITY_IAM".to_owned()),
            ("Capabilities.member.2".to_owned(), "CAPABILITY_AUTO_EXPAND".to_owned()),
        ];
        let parameters = elements(&described, "ParameterKey");
        let values = elements(&described, "ParameterValue");
        let current = parameters.iter().position(|it| *it == name);
        let current = current.with_context(|| format!("the stack has no parameter {name}"))?;
        // CloudFormation refuses an update that changes nothing.
        if values.get(current) == Some(&value) {
            return Ok(());
        }
        for (number, parameter) in (1..).zip(parameters) {
            let field = |member: &str| format!("Parameters.member.{number}.{member}");
            fields.push((field("ParameterKey"), parameter.to_owned()));
            fields.push(if parameter == name {
                (field("ParameterValue"), value.to_owned())
            } else {
                (field("UsePreviousValue"), "true".to_owned())
            });
        }
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.cloudformation(&fields).await?;
        let what = format!("{name} is {value}");
        let finished = eventually(&what, async || {
            let described = self.cloudformation(&[("Action", "DescribeStacks")]).await?;
            let state = elements(&described, "StackStatus").first().copied().unwrap_or_default();
            ensure!(!state.ends_with("_IN_PROGRESS"), "the stack is {state}");
            Ok(state.to_owned())
        });
        match finished.await?.as_str() {
            "UPDATE_COMPLETE" => Ok(()),
            state => bail!("the stack is {state} after {name} was set to {value}"),
        }
    }

    /// Calls CloudFormation about this stack. Its answers are XML.
    async fn cloudformation(&self, fields: &[(&str, &str)]) -> Result<String> {
        let common = [("Version", "2010-05-15"), ("StackName", &*self.description.stack_name)];
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs = common.iter().chain(fields);
        let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let scope =
            format!("test/20260524/{}/cloudformation/aws4_request", self.description.region);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            // The emulator finds the service in it, and verifies nothing.
            ("authorization", authorization.as_str()),
        ];
        let url = &self.description.aws_endpoint;
        Ok(self.http.send(Method::POST, url, &headers, body).await?.expect(200)?.text)
    }
}

/// The texts of all elements of this name, in their order.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&*start).skip(1).filter_map(|rest| Some(rest.split_once(&*end)?.0)).collect()
}
