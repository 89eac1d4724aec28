//! The values of options. Values without a meaning do not parse.

use http::{HeaderValue, StatusCode};
use serde::Deserialize;

/// The shape of a result of Zvid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResultShape {
    /// `"result": "https://…"`
    Url,
    /// `"result": {"url": "https://…", "thumbnailUrl": …}`
    Object,
}

/// When a provider answers a submit that it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SubmitAnswerTime {
    AtOnce,
    /// After a callback about the render was answered.
    AfterCallback,
    /// Never.
    Never,
}

/// The shape of a callback of JSON2Video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CallbackShape {
    /// `{"success":true,"movie":{"project":"…","status":"done",…}}`
    Nested,
    /// `{"project":"…","width":"1920",…}`: numbers are strings, and a success has no status.
    FlatStrings,
    /// `{"project":"…","status":"done",…}`
    Flat,
}

/// The content type of a callback of JSON2Video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CallbackContentType {
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

/// 200 or 202, as a number in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct AcceptedStatus(StatusCode);

impl AcceptedStatus {
    pub(crate) const OK: Self = Self(StatusCode::OK);

    pub(crate) fn get(self) -> StatusCode {
        self.0
    }
}

impl TryFrom<u16> for AcceptedStatus {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<Self, Self::Error> {
        match code {
            200 => Ok(Self(StatusCode::OK)),
            202 => Ok(Self(StatusCode::ACCEPTED)),
            _ => Err("a submit is accepted with 200 or 202"),
        }
    }
}

/// A whole percentage, as a fraction from 0 to 1 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "f64")]
pub(crate) struct Percent(u8);

impl Percent {
    /// The percentage of `part` in `whole`, rounded down and at most 100.
    pub(crate) fn of(part: u64, whole: u64) -> Self {
        let percent = part.saturating_mul(100).checked_div(whole).unwrap_or(100);
        Self(u8::try_from(percent).unwrap_or(100).min(100))
    }

    pub(crate) fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = &'static str;

    fn try_from(fraction: f64) -> Result<Self, Self::Error> {
        let percent = (fraction * 100.0).round();
        (0..=100u8)
            .find(|whole| f64::from(*whole) == percent)
            .map(Self)
            .ok_or("a fraction lies between 0 and 1")
    }
}

/// An HTTP status, as a number in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct Status(StatusCode);

impl Status {
    pub(crate) const OK: Self = Self(StatusCode::OK);

    pub(crate) fn get(self) -> StatusCode {
        self.0
    }
}

impl TryFrom<u16> for Status {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<Self, Self::Error> {
        // An informational status would announce another answer, and the caller would wait for
        // ever.
        StatusCode::from_u16(code)
            .ok()
            .filter(|status| !status.is_informational())
            .map(Self)
            .ok_or("a status lies between 200 and 999")
    }
}

/// A header value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HeaderText(HeaderValue);

impl HeaderText {
    pub(crate) fn get(&self) -> &HeaderValue {
        &self.0
    }
}

impl TryFrom<String> for HeaderText {
    type Error = http::header::InvalidHeaderValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        HeaderValue::try_from(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_become_percentages() {
        for (fraction, percent) in [(0.0, 0), (0.07, 7), (0.29, 29), (0.4, 40), (1.0, 100)] {
            assert_eq!(Percent::try_from(fraction), Ok(Percent(percent)));
        }
        assert_eq!(Percent::try_from(f64::NAN), Err("a fraction lies between 0 and 1"));
    }

    #[test]
    fn parts_become_percentages() {
        for (part, whole, percent) in [(0, 10, 0), (1, 3, 33), (10, 10, 100), (0, 0, 100)] {
            assert_eq!(Percent::of(part, whole), Percent(percent));
        }
    }

    #[test]
    fn accepted_status_is_200_or_202() {
        let statuses = [200, 201, 202].map(|code| AcceptedStatus::try_from(code).is_ok());
        assert_eq!(statuses, [true, false, true]);
    }
}
