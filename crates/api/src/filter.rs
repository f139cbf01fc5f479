//! `$filter` of the resource manager and of the directory: the conditions that clients send, joined by `and`.
//!
//! What is not understood is an error, never a condition that holds for everything or for nothing: an answer with too
//! much names the wrong principal, and one with too little says that something does not exist.

/// Most conditions of one filter: clients send up to four, and each is compared with every item of a list.
const CONDITIONS_MAX: usize = 15;

/// One condition. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `property eq 'value'`.
    Equal {
        /// The property.
        property: String,
        /// What it is.
        value: String,
    },
    /// `startswith(property,'start')`.
    StartsWith {
        /// The property.
        property: String,
        /// What it begins with.
        start: String,
    },
    /// `collection/any(x:x eq 'value')`.
    Any {
        /// The property, a list of texts.
        collection: String,
        /// What one of them is.
        value: String,
    },
    /// `function()` or `function('argument')`.
    Call {
        /// The function.
        function: String,
        /// Its argument, empty if there is none.
        argument: String,
    },
}

impl Condition {
    /// The property or function that it is about.
    pub(crate) fn name(&self) -> &str {
        match self {
            Condition::Equal { property: name, .. }
            | Condition::StartsWith { property: name, .. }
            | Condition::Any { collection: name, .. }
            | Condition::Call { function: name, .. } => name,
        }
    }
}

/// A filter is not understood: the text from the first thing on that is not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotUnderstood(pub(crate) String);

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// What is between quotes, in which two are one.
    Text(String),
    Open,
    Close,
    Comma,
    Colon,
}

/// The tokens, and where each begins.
fn tokens(text: &str) -> Result<(Vec<Token<'_>>, Vec<usize>), NotUnderstood> {
    let (mut found, mut begins) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let begin = at;
        let rest = text.get(at..).unwrap_or_default();
        let single = match first {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            ',' => Some(Token::Comma),
            ':' => Some(Token::Colon),
            _ => None,
        };
        if let Some(token) = single {
            at += 1;
            found.push(token);
        } else if first.is_whitespace() {
            at += first.len_utf8();
        } else if first == '\'' {
            let (inside, length) = quoted(rest).ok_or_else(|| NotUnderstood(rest.to_owned()))?;
            at += length;
            found.push(Token::Text(inside));
        } else {
            let ends = |c: char| c.is_whitespace() || "(),:'".contains(c);
            let word = rest.get(..rest.find(ends).unwrap_or(rest.len())).unwrap_or(rest);
            at += word.len();
            found.push(Token::Word(word));
        }
        begins.resize(found.len(), begin);
    }
    Ok((found, begins))
}

/// The text that begins with a quote, without its quotes, and how long it is with them.
fn quoted(rest: &str) -> Option<(String, usize)> {
    let mut inside = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != '\'' {
            inside.push(character);
        } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
            inside.push('\'');
        } else {
            return Some((inside, at + 1));
        }
    }
    None
}

/// The conditions of a filter; none of an empty one. Parentheses may stand around any of them.
pub(crate) fn parse(text: &str) -> Result<Vec<Condition>, NotUnderstood> {
    let (tokens, begins) = tokens(text)?;
    let mut found = Vec::new();
    let mut rest = tokens.as_slice();
    let mut depth = 0_usize;
    let from = |rest: &[Token<'_>]| {
        let begin = begins.get(tokens.len() - rest.len());
        NotUnderstood(begin.and_then(|begin| text.get(*begin..)).unwrap_or_default().to_owned())
    };
    while !tokens.is_empty() {
        while let [Token::Open, after @ ..] = rest {
            depth += 1;
            rest = after;
        }
        let (condition, after) = condition(rest).ok_or_else(|| from(rest))?;
        if found.len() == CONDITIONS_MAX {
            return Err(from(rest));
        }
        found.push(condition);
        rest = after;
        while let [Token::Close, after @ ..] = rest {
            depth = depth.checked_sub(1).ok_or_else(|| from(rest))?;
            rest = after;
        }
        match rest {
            [] if depth == 0 => break,
            [Token::Word(and), after @ ..] if and.eq_ignore_ascii_case("and") => rest = after,
            _ => return Err(from(rest)),
        }
    }
    Ok(found)
}

/// The condition that stands first, and what comes after it.
fn condition<'a, 'b>(rest: &'a [Token<'b>]) -> Option<(Condition, &'a [Token<'b>])> {
    use Token::{Close, Colon, Comma, Open, Text, Word};
    let is_eq = |word: &str| word.eq_ignore_ascii_case("eq");
    let lower = |word: &str| word.to_ascii_lowercase();
    Some(match rest {
        // GUIDs, numbers and truth values stand without quotes.
        [Word(name), Word(eq), value, after @ ..] if is_eq(eq) => {
            (Condition::Equal { property: lower(name), value: literal(value)? }, after)
        }
        [Word(name), Open, Word(each), Colon, Word(it), Word(eq), value, Close, after @ ..]
            if is_eq(eq) && each == it =>
        {
            let collection = lower(name).strip_suffix("/any")?.to_owned();
            (Condition::Any { collection, value: literal(value)? }, after)
        }
        [Word(name), Open, Word(property), Comma, Text(start), Close, after @ ..]
            if name.eq_ignore_ascii_case("startswith") =>
        {
            (Condition::StartsWith { property: lower(property), start: start.clone() }, after)
        }
        [Word(name), Open, Close, after @ ..] => {
            (Condition::Call { function: lower(name), argument: String::new() }, after)
        }
        [Word(name), Open, argument, Close, after @ ..] => {
            (Condition::Call { function: lower(name), argument: literal(argument)? }, after)
        }
        _ => return None,
    })
}

fn literal(token: &Token<'_>) -> Option<String> {
    match token {
        Token::Word(word) => Some((*word).to_owned()),
        Token::Text(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(property: &str, value: &str) -> Condition {
        Condition::Equal { property: property.into(), value: value.into() }
    }

    fn call(function: &str, argument: &str) -> Condition {
        Condition::Call { function: function.into(), argument: argument.into() }
    }

    fn starts(property: &str, start: &str) -> Condition {
        Condition::StartsWith { property: property.into(), start: start.into() }
    }

    fn any(collection: &str, value: &str) -> Condition {
        Condition::Any { collection: collection.into(), value: value.into() }
    }

    #[test]
    fn filters_that_clients_send() {
        let cases = [
            ("", vec![]),
            ("  ", vec![]),
            (
                "resourceType eq 'Microsoft.KeyVault/vaults' and name eq 'a'",
                vec![equal("resourcetype", "Microsoft.KeyVault/vaults"), equal("name", "a")],
            ),
            ("atScope()", vec![call("atscope", "")]),
            ("atScope() and assignedTo('x')", vec![call("atscope", ""), call("assignedto", "x")]),
            ("(principalId eq 0-1) AND (atScope())", vec![equal("principalid", "0-1"), call("atscope", "")]),
            ("roleName eq 'It''s'", vec![equal("rolename", "It's")]),
            ("roleName eq ''", vec![equal("rolename", "")]),
            ("roleName eq 'Backup and Restore'", vec![equal("rolename", "Backup and Restore")]),
            ("displayName eq 'a eq b) and c'", vec![equal("displayname", "a eq b) and c")]),
            ("displayName eq 'Zoë' and id eq '1'", vec![equal("displayname", "Zoë"), equal("id", "1")]),
            ("startswith(displayName, 'R and D, (all)')", vec![starts("displayname", "R and D, (all)")]),
            ("servicePrincipalNames/any(c:c eq 'http://x')", vec![any("serviceprincipalnames", "http://x")]),
            ("identifierUris/any(s: s eq 'x')", vec![any("identifieruris", "x")]),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let many = vec!["a eq 'b'"; CONDITIONS_MAX + 1].join(" and ");
        let cases = [
            ("name ne 'a'", "name ne 'a'"),
            ("name eq 'a' or name eq 'b'", "or name eq 'b'"),
            ("name eq 'a' and", ""),
            ("and name eq 'a'", "and name eq 'a'"),
            ("name eq 'a", "'a"),
            ("name eq 'a'b'", "'"),
            ("name eq 'a' 'b'", "'b'"),
            ("name eq", "name eq"),
            ("name", "name"),
            ("'a' eq name", "'a' eq name"),
            ("(name eq 'a'", ""),
            ("name eq 'a')", ")"),
            ("id in ('a', 'b')", "id in ('a', 'b')"),
            ("not startswith(name,'a')", "not startswith(name,'a')"),
            ("startswith(name,b)", "startswith(name,b)"),
            ("names/any(c:d eq 'x')", "names/any(c:d eq 'x')"),
            ("names/all(c:c eq 'x')", "names/all(c:c eq 'x')"),
            (many.as_str(), "a eq 'b'"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Err(NotUnderstood(want.into())), "{text}");
        }
    }
}
