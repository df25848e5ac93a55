//! Lines of shell that jobs share.

use shlex::try_quote;

/// One word of a POSIX shell, whatever is in it.
pub(super) fn word(text: &str) -> String {
    try_quote(text).expect("no argument of a program holds NUL").into_owned()
}

/// Words of a command, in lines of some hundred characters.
pub(super) fn command(words: &[String]) -> String {
    const WIDTH: usize = 100;
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in words {
        if !line.is_empty() && line.len() + word.len() >= WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join(" \\\n  ")
}

/// Makes `--resume` the script's first argument where the run that writes to `output` has left a checkpoint, and leaves it
/// without arguments otherwise. A run takes none of its hidden folders for one.
pub(super) fn resume(output: &str) -> String {
    format!(
        "# A job that is started again goes on from the newest checkpoint.\n\
         set --\n\
         for checkpoint in {}/checkpoint-[0-9]*/; do\n  if [ -d \"$checkpoint\" ]; then set -- --resume; fi\ndone\n",
        word(output.trim_end_matches('/'))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_lines_of_whole_words() {
        let words: Vec<String> = (0..40).map(|it| format!("--word={it}")).collect();
        let told = command(&words);
        assert!(told.lines().count() > 2 && told.lines().all(|it| it.len() < 110), "{told}");
        assert_eq!(shlex::split(&told.replace("\\\n", "")).unwrap(), words);
    }
}
