//! Form bodies: `application/x-www-form-urlencoded` and `multipart/form-data`.
//!
//! The body itself shows which of the two it is: multipart begins with its boundary, which is
//! read from the first line. Content types are ignored, because vendors get them wrong and
//! because two readers of one body must not disagree. The parser is our own, because signatures
//! need the raw bytes of a part, and because it must refuse what is ambiguous.

use percent_encoding::percent_decode;

/// The end of every line of a multipart body, and the end of its head.
const LINE: &[u8] = b"\r\n";
const HEAD: &[u8] = b"\r\n\r\n";

/// The longest boundary that RFC 2046 allows.
const MAX_BOUNDARY_BYTES: usize = 70;

/// One field, decoded. A file is not a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// All fields of a form, in their order in the body. None when the body is multipart but does
/// not follow RFC 7578.
pub(crate) fn fields(body: &[u8]) -> Option<Vec<Field>> {
    if body.starts_with(b"--") { multipart(body) } else { Some(urlencoded(body)) }
}

fn urlencoded(body: &[u8]) -> Vec<Field> {
    let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let field = |pair: &[u8]| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut half = || url_decoded(halves.next().unwrap_or_default());
        Field { name: half(), value: half() }
    };
    pairs.map(field).collect()
}

fn url_decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

fn multipart(body: &[u8]) -> Option<Vec<Field>> {
    let (first, mut rest) = cut(body, LINE)?;
    let boundary = first.strip_prefix(b"--")?;
    let sound = (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len())
        && boundary.iter().all(|byte| byte.is_ascii_graphic());
    if !sound {
        return None;
    }
    let delimiter = [LINE, first].concat();
    let mut fields = Vec::new();
    loop {
        let (part, after) = cut(rest, &delimiter)?;
        fields.extend(field(part)?);
        if after == b"--" || after == b"--\r\n" {
            return Some(fields);
        }
        // Anything else belongs to a longer boundary, or is malformed.
        rest = after.strip_prefix(LINE)?;
    }
}

/// The field of a part; the inner option is none for a file.
fn field(part: &[u8]) -> Option<Option<Field>> {
    let (head, value) = cut(part, HEAD)?;
    let mut dispositions = lines(head).filter_map(|line| {
        let (name, value) = cut(line, b":")?;
        name.eq_ignore_ascii_case(b"content-disposition").then_some(value)
    });
    let (Some(disposition), None) = (dispositions.next(), dispositions.next()) else {
        return None;
    };
    let parameters = parameters(disposition)?;
    let only = |searched: &str| {
        let mut values = parameters.iter().filter(|(name, _)| name == searched.as_bytes());
        (values.next().map(|(_, value)| value), values.next().is_some())
    };
    if only("filename").0.is_some() || only("filename*").0.is_some() {
        return Some(None);
    }
    match only("name") {
        (Some(name), false) => Some(Some(Field { name: name.to_vec(), value: value.to_vec() })),
        (_, _) => None,
    }
}

/// The parameters of `form-data; name="a"`, by lower-case name.
fn parameters(disposition: &[u8]) -> Option<Vec<(Vec<u8>, &[u8])>> {
    let mut rest = disposition.trim_ascii_start().strip_prefix(b"form-data")?.trim_ascii_start();
    let mut parameters = Vec::new();
    while !rest.is_empty() {
        let (name, after) = cut(rest.strip_prefix(b";")?, b"=")?;
        let (value, after) = match after.strip_prefix(b"\"") {
            Some(quoted) => cut(quoted, b"\"")?,
            None => match cut(after, b";") {
                Some((value, _)) => after.split_at(value.len()),
                None => (after, &b""[..]),
            },
        };
        // With an escape, readers could disagree about where the value ends.
        if value.contains(&b'\\') {
            return None;
        }
        parameters.push((name.trim_ascii().to_ascii_lowercase(), value));
        rest = after.trim_ascii_start();
    }
    Some(parameters)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The text before and after the first `separator`.
fn cut<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    let (before, after) = bytes.split_at(at);
    Some((before, after.get(separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<Vec<(String, String)>> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let fields = fields(body.as_bytes())?.into_iter();
        Some(fields.map(|field| (text(field.name), text(field.value))).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    fn multipart(parts: &[&str]) -> String {
        let parts: String = parts.iter().map(|part| format!("--b\r\n{part}\r\n")).collect();
        format!("{parts}--b--\r\n")
    }

    const A: &str = "Content-Disposition: form-data; name=\"a\"\r\n\r\n1";

    #[test]
    fn form_decodes_pairs() {
        assert_eq!(
            read("a=1&b=x+%C3%BC%3D&&c&=d"),
            pairs(&[("a", "1"), ("b", "x ü="), ("c", ""), ("", "d"),])
        );
        assert_eq!(read(""), Some(Vec::new()));
    }

    #[test]
    fn form_keeps_multipart_bytes() {
        let json = "content-disposition:form-data;name=\"b\"\r\nContent-Type: text/plain\r\n\r\n\
                    {\"x\": \"a=1&b=%20\"}\r\n--\r\n";
        assert_eq!(
            read(&multipart(&[A, json])),
            pairs(&[("a", "1"), ("b", "{\"x\": \"a=1&b=%20\"}\r\n--\r\n")])
        );
        let unquoted = "Content-Disposition: form-data; name=a; x=\"y;z\"\r\n\r\n";
        assert_eq!(read(&multipart(&[unquoted])), pairs(&[("a", "")]));
        assert_eq!(read("--b--\r\n--b--\r\n"), None);
    }

    #[test]
    fn form_skips_files() {
        let file = "Content-Disposition: form-data; name=\"f\"; filename=\"a.mp4\"\r\n\r\nbytes";
        assert_eq!(read(&multipart(&[file, A])), pairs(&[("a", "1")]));
    }

    #[test]
    fn form_refuses_ambiguous_bodies() {
        for part in [
            "a",
            "\r\n1",
            "Content-Type: text/plain\r\n\r\n1",
            "Content-Disposition: form-data\r\n\r\n1",
            "Content-Disposition: form-data; name\r\n\r\n1",
            "Content-Disposition: form-data; name=\"a\r\n\r\n1",
            "Content-Disposition: form-data; name=\"a\\\"b\"\r\n\r\n1",
            "Content-Disposition: form-data; name=\"a\\\"\r\n\r\n1",
            "Content-Disposition: form-data; name=\"a\"; name=\"b\"\r\n\r\n1",
            "Content-Disposition: attachment; name=\"a\"\r\n\r\n1",
            "Content-Disposition: form-data; name=\"a\"\r\n\
             Content-Disposition: form-data; name=\"b\"\r\n\r\n1",
        ] {
            assert_eq!(read(&multipart(&[part])), None, "{part:?}");
        }
        // The boundary, and more: it may not occur in a part.
        assert_eq!(read(&multipart(&[&format!("{A}\r\n--bb")])), None);
        let whole = multipart(&[A]);
        assert_eq!(read(&whole), pairs(&[("a", "1")]));
        for body in [
            "--".to_owned(),
            "--\r\n--".to_owned(),
            "--b".to_owned(),
            "--b\r\n".to_owned(),
            format!("--{}\r\n", "b".repeat(71)),
            format!("--b c\r\n{A}\r\n--b c--\r\n"),
            format!("{whole}more"),
            whole.replace("--b--", "--b-"),
            whole.replace("--b--", "--bb--"),
            whole.replace("\r\n", "\n"),
            format!("--b\r\n{A}"),
        ] {
            assert_eq!(read(&body), None, "{body:?}");
        }
    }
}
