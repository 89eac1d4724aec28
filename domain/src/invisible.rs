//! Characters that a reader does not see, or sees elsewhere than they are: two ids that look equal
//! are then not, and a text may fake the line beside it.

/// Whether a character formats a text and is not part of it: zero-width and bidirectional
/// characters, separators of lines, and the others of Unicode's category Cf; and those that are
/// blank by themselves, such as variation selectors and fillers.
#[must_use]
pub fn is_invisible(character: char) -> bool {
    matches!(u32::from(character),
        0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2
        | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
        | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
        | 0xfff0..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3
        | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

/// A text with control and invisible characters as escapes, so that a terminal shows what it is
/// and obeys none of them.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() || is_invisible(character) {
            true => visible.extend(character.escape_unicode()),
            false => visible.push(character),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_known() {
        for hidden in [
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2063}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fe0f}',
            '\u{fff9}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e007f}',
            '\u{e0100}',
            '\u{115f}',
            '\u{3164}',
            '\u{34f}',
        ] {
            assert!(is_invisible(hidden), "{}", hidden.escape_unicode());
        }
        for shown in " aä/é日本ॐم\u{5d0}\u{301}😀€-_‐–“\u{2027}\u{202f}\u{2070}\u{ffff}".chars()
        {
            assert!(!is_invisible(shown), "{}", shown.escape_unicode());
        }
    }

    #[test]
    fn text_is_made_visible() {
        let hostile = "https://a\u{202e}gpj.exe\nstate  completed\u{1b}[2J\u{9b}é\u{200b}";
        let shown = r"https://a\u{202e}gpj.exe\u{a}state  completed\u{1b}[2J\u{9b}é\u{200b}";
        assert_eq!(visible(hostile), shown);
    }
}
