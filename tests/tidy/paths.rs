//! Paths of one machine, which mean nothing on another.

/// First directories that belong to a person or a machine and never to the product.
const DIRECTORIES: [&str; 4] = ["home", "root", "work", "Users"];

/// Every absolute path below one of them, in code, comments or documents.
pub(crate) fn of_machines(text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let bad = lines.filter(|(_, line)| {
        DIRECTORIES
            .iter()
            .any(|directory| has_path(line, directory))
    });
    bad.map(|(at, line)| format!("{}: {}", at + 1, line.trim()))
        .collect()
}

/// An absolute path starts where no path, name or address runs into it.
fn has_path(line: &str, directory: &str) -> bool {
    let path = format!("/{directory}/");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-/}~$>*%".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test() {
        for directory in DIRECTORIES {
            for text in [
                format!("open(\"/{directory}/me/x\")"),
                format!("see /{directory}/x"),
                format!("/{directory}/"),
            ] {
                assert_eq!(of_machines(&text).len(), 1, "{text}");
            }
            let good = [
                format!("/var/{directory}/x"),
                format!("https://example.com/{directory}/x"),
                format!("${{dir}}/{directory}/x"),
            ];
            for text in good {
                assert_eq!(of_machines(&text), Vec::<String>::new(), "{text}");
            }
        }
        assert_eq!(
            of_machines("work/ home, /homes/ /var/lib/argosy"),
            Vec::<String>::new()
        );
    }
}
