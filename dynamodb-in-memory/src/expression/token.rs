//! The words and symbols of an expression.

/// A part of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, a keyword, a function, `#name` or `:value`.
    Word(String),
    /// `(`, `,`, `<=` and the like.
    Symbol(&'static str),
}

/// Longer ones first, because `<` begins `<=`.
const SYMBOLS: [&str; 11] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "+", "-"];

/// Splits an expression.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_placeholder = matches!(first, '#' | ':');
        rest = if is_placeholder || first.is_ascii_alphabetic() || first == '_' {
            let end = rest.char_indices().skip(1).find(|(_, c)| !in_word(*c));
            let (word, after) = rest.split_at(end.map_or(rest.len(), |(end, _)| end));
            if is_placeholder && word.len() == 1 {
                return Err(format!("`{first}` is not understood"));
            }
            tokens.push(Token::Word(word.to_owned()));
            after
        } else {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
            let symbol = symbol.ok_or_else(|| format!("`{first}` is not understood"))?;
            tokens.push(Token::Symbol(symbol));
            rest.strip_prefix(symbol).unwrap_or_default()
        }
        .trim_start();
    }
    Ok(tokens)
}
