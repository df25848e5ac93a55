//! The numbered list that a model goes on with.

/// The opening, the seeds as tasks 1 to n, and the beginning of task n + 1.
pub fn question<'a>(opening: &str, seeds: impl Iterator<Item = &'a str>, tasks: u32) -> String {
    let mut text = format!("{opening}\n\n");
    let mut next = 1;
    for seed in seeds {
        // A seed of several lines must not look like several tasks.
        let seed = seed.split_whitespace().collect::<Vec<_>>().join(" ");
        text.push_str(&format!("Task {next}: {seed}\n"));
        next += 1;
    }
    let last = next + tasks - 1;
    format!("{text}(up to Task {last})\nTask {next}:")
}

/// Where a line begins with `Task 5:`, `5.`, `5)`, or such; what follows.
fn numbered(line: &str) -> Option<&str> {
    let line = line.trim_start_matches(['*', '#', '-', ' ', '\t']);
    let after_word = ["Task", "task", "任务", "题目"].iter().find_map(|it| line.strip_prefix(it));
    let rest = after_word.unwrap_or(line).trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 4 {
        return None;
    }
    let after = rest[digits..].trim_start_matches('*');
    let sign = after.strip_prefix([':', '：', ')', '、']).or_else(|| {
        // `3.5 kilograms` is no number of a task.
        after.strip_prefix('.').filter(|it| it.starts_with(char::is_whitespace))
    });
    sign.map(|it| it.trim_matches(['*', ' ', '\t']))
}

/// The tasks of an answer: the first has no number where the model went on with that of the question.
pub fn tasks(answer: &str) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    let mut open = true;
    for line in answer.lines() {
        match numbered(line) {
            Some(task) => {
                tasks.push(task.to_owned());
                open = true;
            }
            // An empty line ends a task: what follows is talk.
            None if line.trim().is_empty() => open = tasks.is_empty(),
            None if open => match tasks.last_mut() {
                Some(last) => *last = format!("{last}\n{}", line.trim()),
                None => tasks.push(line.trim().to_owned()),
            },
            None => {}
        }
    }
    tasks.retain(|it| !it.is_empty());
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_in_the_ways_models_number_them() {
        assert_eq!(tasks(" A\nTask 5: B\nmore\nTask 6: C\n\nI hope this helps."), ["A", "B\nmore", "C"]);
        assert_eq!(tasks("1. A\n2) B\n**3:** C\n4、D"), ["A", "B", "C", "D"]);
        assert_eq!(tasks("Convert 3.5 miles.\n任务 2：你好"), ["Convert 3.5 miles.", "你好"]);
        assert!(tasks("\n").is_empty());
    }

    #[test]
    fn the_list_ends_where_the_model_goes_on() {
        let text = question("Go on:", ["a\nb", "c"].into_iter(), 3);
        assert_eq!(text, "Go on:\n\nTask 1: a b\nTask 2: c\n(up to Task 5)\nTask 3:");
    }
}
