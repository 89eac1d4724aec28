//! Secrets of ours that a provider sends back, as error texts do that quote a request. They are
//! masked where a provider's document is read, before any value is taken from it, so that no job,
//! event, webhook, problem or log can have one. A text is also read as its escapes mean it
//! (`%2B`, `\u002b`, `&#43;`), because an error may quote a document inside another.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What stands in the place of a secret.
pub const MASK: &str = "[secret]";

/// A shorter secret is masked only where it stands alone in a text: as a part of words, ids and
/// URLs it is there by chance.
const MIN_CERTAIN: usize = 8;

/// A shorter secret is not masked: it guards nothing, and every text would have it.
const MIN_WORD: usize = 4;

/// The shortest part of a signature header that is taken for a signature.
const MIN_SIGNATURE: usize = 16;

/// How much of a text is read as its escapes mean it. No message or URL that is kept is longer.
const MAX_ESCAPED_BYTES: usize = 16 * 1024;

/// How often a text may be escaped.
const MAX_ESCAPED_TIMES: usize = 4;

/// The secrets that a provider was given. Without any it still masks tokens in callback URLs and
/// signing secrets, which can be told by their form. `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EchoMask {
    forms: Vec<Form>,
}

/// One form of a secret.
#[derive(Clone, PartialEq, Eq)]
struct Form {
    bytes: Vec<u8>,
    kind: FormKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormKind {
    /// Wherever it occurs, in either case.
    Text,
    /// As a word of a longer text.
    Word,
    /// In base64, with all base64 around it: what was encoded may be more than the secret.
    Base64,
}

impl EchoMask {
    /// This mask, and a secret in all forms that a request may have it in.
    #[must_use]
    pub fn with_secret(mut self, secret: &str) -> Self {
        self.add(secret);
        // `user:password`, and `key:` or `:key` with nothing beside it.
        if let Some((user, password)) = secret.split_once(':') {
            match (user, password) {
                (only, "") | ("", only) => self.add(only),
                (_, password) => self.add(password),
            }
        }
        self
    }

    /// This mask, and the signatures in a header's value.
    #[must_use]
    pub fn with_signatures(mut self, header: &str) -> Self {
        let parts = header.split(|c: char| !is_base64_char(c) || c == '=');
        parts.filter(|part| part.len() >= MIN_SIGNATURE).for_each(|part| self.add(part));
        self
    }

    /// Masks all texts of a document, and tells whether there was one to mask.
    pub fn mask(&self, document: &mut Value) -> bool {
        match document {
            Value::String(text) => match self.masked(text) {
                Some(masked) => {
                    *text = masked;
                    true
                }
                None => false,
            },
            Value::Number(number) => {
                let is_secret = self.is_secret(&number.to_string());
                if is_secret {
                    *document = Value::String(MASK.to_owned());
                }
                is_secret
            }
            // All of them: `any` would stop at the first.
            Value::Array(elements) => {
                let found = elements.iter_mut().map(|element| self.mask(element));
                found.filter(|found| *found).count() > 0
            }
            Value::Object(members) => {
                let found = members.values_mut().map(|member| self.mask(member));
                found.filter(|found| *found).count() > 0
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// The text with secrets masked; none when it has none.
    #[must_use]
    pub fn masked(&self, text: &str) -> Option<String> {
        let mut spans = self.find(text.as_bytes());
        let mut level = Level::of(text.get(..MAX_ESCAPED_BYTES).unwrap_or(text).as_bytes());
        for _ in 0..MAX_ESCAPED_TIMES {
            let Some(next) = level.unescaped() else { break };
            level = next;
            let found = self.find(&level.bytes).into_iter();
            spans.extend(found.filter_map(|span| level.origin(&span)));
        }
        if spans.is_empty() {
            return None;
        }
        spans.sort_by_key(|span| span.start);
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for span in spans {
            if span.start >= done {
                masked.push_str(text.get(done..span.start).unwrap_or_default());
                masked.push_str(MASK);
            }
            done = done.max(span.end);
        }
        masked.push_str(text.get(done..).unwrap_or_default());
        Some(masked)
    }

    fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < MIN_WORD {
            return;
        }
        let bytes = secret.as_bytes();
        if bytes.len() < MIN_CERTAIN {
            self.forms.push(Form { bytes: bytes.to_vec(), kind: FormKind::Word });
            return;
        }
        self.forms.push(Form { bytes: bytes.to_vec(), kind: FormKind::Text });
        self.forms.push(Form { bytes: hex::encode(bytes).into_bytes(), kind: FormKind::Text });
        // Base64 encodes three bytes at a time, so a secret inside of a longer text has three
        // forms: by how many of its bytes belong to a group that begins before it.
        for skipped in 0..3 {
            let inner = bytes.get(skipped..).unwrap_or_default();
            let whole = inner.get(..inner.len() / 3 * 3).unwrap_or_default();
            for encoded in [STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)] {
                let form = Form { bytes: encoded.into_bytes(), kind: FormKind::Base64 };
                if !self.forms.contains(&form) {
                    self.forms.push(form);
                }
            }
        }
    }

    fn is_secret(&self, text: &str) -> bool {
        self.forms.iter().any(|it| it.kind == FormKind::Text && it.bytes == text.as_bytes())
    }

    /// Where secrets are, in any order.
    fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut begins = [false; 256];
        let first = self.forms.iter().filter_map(|form| form.bytes.first());
        for byte in
            first.chain(b"/w").flat_map(|it| [it.to_ascii_lowercase(), it.to_ascii_uppercase()])
        {
            if let Some(may) = begins.get_mut(usize::from(byte)) {
                *may = true;
            }
        }
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            if begins.get(usize::from(*byte)) != Some(&true) {
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            found.extend(self.forms.iter().filter_map(|form| form.at(bytes, at)));
            found.extend(token_in_url(rest).map(|it| at + it.start..at + it.end));
            found.extend(signing_secret(rest).map(|it| at + it.start..at + it.end));
        }
        found
    }
}

impl fmt::Debug for EchoMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EchoMask({} forms, redacted)", self.forms.len())
    }
}

impl Form {
    /// The place of this form, if it begins at `at`.
    fn at(&self, bytes: &[u8], at: usize) -> Option<Range<usize>> {
        let end = at + self.bytes.len();
        let here = bytes.get(at..end)?;
        let before = bytes.get(..at)?;
        let behind = bytes.get(end..)?;
        match self.kind {
            FormKind::Text => here.eq_ignore_ascii_case(&self.bytes).then_some(at..end),
            FormKind::Word => {
                let is_alone = !before.last().is_some_and(is_word_byte)
                    && !behind.first().is_some_and(is_word_byte)
                    && here.len() < bytes.len();
                (here == self.bytes && is_alone).then_some(at..end)
            }
            FormKind::Base64 => (here == self.bytes).then(|| {
                let before = before.iter().rev().take_while(|it| is_base64(it)).count();
                let behind = behind.iter().take_while(|it| is_base64(it)).count();
                at - before..end + behind
            }),
        }
    }
}

/// A text as its escapes mean it, and for each byte where it is in the original.
struct Level {
    bytes: Vec<u8>,
    origins: Vec<Range<usize>>,
}

impl Level {
    fn of(text: &[u8]) -> Self {
        let origins = (0..text.len()).map(|at| at..at + 1).collect();
        Self { bytes: text.to_vec(), origins }
    }

    /// The text with its escapes replaced once; none when it has none.
    fn unescaped(&self) -> Option<Self> {
        if !self.bytes.iter().any(|byte| b"%\\&".contains(byte)) {
            return None;
        }
        let mut next = Self { bytes: Vec::new(), origins: Vec::new() };
        let mut at = 0;
        while let Some(byte) = self.bytes.get(at) {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let (meant, length) = escape(rest).unwrap_or((*byte, 1));
            next.bytes.push(meant);
            next.origins.extend(self.origin(&(at..at + length)));
            at += length;
        }
        (next.bytes.len() < self.bytes.len()).then_some(next)
    }

    fn origin(&self, span: &Range<usize>) -> Option<Range<usize>> {
        let first = self.origins.get(span.start)?;
        let last = self.origins.get(span.end.checked_sub(1)?)?;
        Some(first.start..last.end)
    }
}

/// The ASCII character that an escape at the begin of `text` stands for, and the escape's length.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [b'%', digits @ ..] => Some((number(digits.get(..2)?, 16)?, 3)),
        [b'\\', b'u' | b'U', digits @ ..] => Some((number(digits.get(..4)?, 16)?, 6)),
        [b'\\', b'x', digits @ ..] => Some((number(digits.get(..2)?, 16)?, 4)),
        [b'\\', other, ..] if other.is_ascii_punctuation() => Some((*other, 2)),
        [b'&', rest @ ..] => {
            let end = rest.iter().take(8).position(|byte| *byte == b';')?;
            let character = match rest.get(..end)? {
                [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
                [b'#', digits @ ..] => number(digits, 10)?,
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"quot" => b'"',
                b"apos" => b'\'',
                b"sol" => b'/',
                b"plus" => b'+',
                b"equals" => b'=',
                b"colon" => b':',
                b"lowbar" => b'_',
                _ => return None,
            };
            Some((character, end + 2))
        }
        _ => None,
    }
}

/// An ASCII character by its number.
fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u8::from_str_radix(text, radix).ok().filter(u8::is_ascii)
}

/// The token, if `text` begins with the path of a job's callback URL. The function that reads an
/// answer need not know the token.
fn token_in_url(text: &[u8]) -> Option<Range<usize>> {
    const PATH: &[u8] = b"/v1/webhooks/";
    let rest = text.get(PATH.len()..)?;
    if !text.get(..PATH.len())?.eq_ignore_ascii_case(PATH) {
        return None;
    }
    let mut segments = rest.splitn(3, |byte| *byte == b'/');
    let (provider, job, rest) = (segments.next()?, segments.next()?, segments.next()?);
    let is_job = job.get(..4).is_some_and(|it| it.eq_ignore_ascii_case(b"job_"));
    let is_id = |segment: &[u8]| segment.len() < 100 && segment.iter().all(is_token);
    let length = rest.iter().take_while(|it| is_token(it)).count();
    let start = PATH.len() + provider.len() + job.len() + 2;
    let is_token = is_job && is_id(provider) && is_id(job) && length >= MIN_CERTAIN;
    is_token.then_some(start..start + length)
}

/// A signing secret of Standard Webhooks, if `text` begins with one.
fn signing_secret(text: &[u8]) -> Option<Range<usize>> {
    let prefix = [&b"whsec_"[..], b"whsk_"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let length = text.iter().take_while(|it| is_base64(it)).count();
    (length - prefix.len() >= MIN_SIGNATURE).then_some(0..length)
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn is_word_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/') || !byte.is_ascii()
}

fn is_base64(byte: &u8) -> bool {
    is_base64_char(char::from(*byte))
}

fn is_base64_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '-' | '_' | '=')
}

#[cfg(test)]
mod tests;
