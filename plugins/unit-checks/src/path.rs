//! Where a value stands in JSON: a singular query of RFC 9535 (`$.a['b'][0]`) or a pointer of RFC 6901 (`/a/b/0`).

use text_tools::json::Json;

/// The way from the root to one value.
pub struct Path(Vec<Step>);

enum Step {
    Name(String),
    /// From the end where negative.
    Index(i64),
    /// A pointer's part, which a list reads as an index.
    Either(String),
}

impl Path {
    /// Reads a path; the empty one is the root.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.starts_with('/') {
            let part = |it: &str| Step::Either(it.replace("~1", "/").replace("~0", "~"));
            return Ok(Self(text.split('/').skip(1).map(part).collect()));
        }
        let refused = |rest: &str| {
            format!("`{text}` is no path to one value: expected `.name`, `['name']` or `[0]` at `{rest}`")
        };
        let mut rest = text.strip_prefix('$').ok_or_else(|| refused(text))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or_else(|| refused(rest))?;
            steps.push(step);
            rest = after;
        }
        Ok(Self(steps))
    }

    /// The value there.
    pub fn find<'a, 'b>(&self, root: &'a Json<'b>) -> Option<&'a Json<'b>> {
        self.0.iter().try_fold(root, |value, step| match (step, value) {
            (Step::Name(name) | Step::Either(name), Json::Object(object)) => object.get(name),
            (Step::Either(index), Json::List(all)) => all.get(index.parse::<usize>().ok()?),
            (Step::Index(index), Json::List(all)) => {
                let at = if *index < 0 { index.checked_add(i64::try_from(all.len()).ok()?)? } else { *index };
                all.get(usize::try_from(at).ok()?)
            }
            _ => None,
        })
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let name = &rest[..end];
        let plain = !name.is_empty() && name.chars().all(|it| it.is_alphanumeric() || "_-".contains(it));
        return plain.then(|| (Step::Name(name.into()), &rest[end..]));
    }
    let rest = text.strip_prefix('[')?;
    if let Some(quote) = rest.chars().next().filter(|it| ['\'', '"'].contains(it)) {
        let (name, after) = rest[1..].split_once(quote)?;
        return Some((Step::Name(name.into()), after.strip_prefix(']')?));
    }
    let (index, after) = rest.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_notations_lead_to_the_same_value() {
        let root = Json::from(json!({"a": {"b c": [1, {"d": 2}]}, "": 3}));
        for path in ["$.a['b c'][1].d", "$['a'][\"b c\"][-1]['d']", "/a/b c/1/d"] {
            assert_eq!(Path::parse(path).unwrap().find(&root), Some(&Json::from(json!(2))), "{path}");
        }
        assert_eq!(Path::parse("$").unwrap().find(&root), Some(&root));
        assert_eq!(Path::parse("/").unwrap().find(&root), Some(&Json::from(json!(3))));
        assert_eq!(Path::parse("$.a[0]").unwrap().find(&root), None);
        for path in ["a.b", "$..a", "$.a[*]", "$.", "$[1"] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }
}
