//! What a stream asks for, in Cedar's words: `context.stream`.

use std::borrow::Cow;

use cedar_policy::RestrictedExpression;
use recorder_user::model::StreamRequest;

use super::entity::{Unbuildable, record, set, text};

/// The record `Stream` of the schema.
pub(super) fn stream(asked: &StreamRequest) -> Result<RestrictedExpression, Unbuildable> {
    let mut fields = vec![
        ("kind", text(asked.kind.as_str())),
        ("commandLine", text(command_line(&asked.command))),
        ("arguments", set(asked.command.iter().skip(1).map(text))),
        ("stdin", RestrictedExpression::new_bool(asked.stdin)),
        ("tty", RestrictedExpression::new_bool(asked.tty)),
        (
            "ports",
            set(asked.ports.iter().map(|port| RestrictedExpression::new_long((*port).into()))),
        ),
    ];
    fields.extend(asked.container.as_ref().map(|container| ("container", text(container))));
    fields.extend(asked.command.first().map(|program| ("program", text(program))));
    record(fields)
}

/// The words of a command as a shell would take them. Different commands give different lines, so that a
/// policy that permits one line permits one command.
fn command_line(words: &[String]) -> String {
    let mut line = String::with_capacity(words.iter().map(|word| word.len() + 1).sum());
    for (at, word) in words.iter().enumerate() {
        if at > 0 {
            line.push(' ');
        }
        line.push_str(&quoted(word));
    }
    line
}

fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn line(words: &[&str]) -> String {
        command_line(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(
            line(&["ls", "-l", "/a_b/c.d", "x=1,2@3%4+5:6"]),
            "ls -l /a_b/c.d x=1,2@3%4+5:6"
        );
        assert_eq!(line(&["sh", "-c", "echo it's; rm *"]), r"sh -c 'echo it'\''s; rm *'");
        assert_eq!(line(&[]), "");
        assert_eq!(line(&["", "é"]), "'' 'é'");
    }

    /// All commands of two words of up to three of the letters that matter, and of three shorter ones.
    #[test]
    fn different_commands_give_different_lines() {
        let mut words = vec![String::new()];
        for length in 0..3 {
            let longer: Vec<String> = words
                .iter()
                .filter(|word| word.len() == length)
                .flat_map(|word| ["a", " ", "'", "\\"].map(|letter| format!("{word}{letter}")))
                .collect();
            words.extend(longer);
        }
        let short: Vec<&String> = words.iter().filter(|word| word.len() < 2).collect();
        let mut commands = vec![vec![]];
        commands.extend(words.iter().map(|word| vec![word.clone()]));
        for first in &words {
            for second in &words {
                commands.push(vec![first.clone(), second.clone()]);
            }
        }
        for first in &short {
            for second in &short {
                for third in &short {
                    commands.push([first, second, third].map(|word| (*word).clone()).to_vec());
                }
            }
        }
        let mut seen: HashMap<String, Vec<String>> = HashMap::new();
        for command in commands {
            if let Some(other) = seen.insert(command_line(&command), command.clone()) {
                panic!("{command:?} and {other:?} give one line");
            }
        }
    }
}
