//! A run's first and last evaluation as a table, with sample answers.

use fthost_run::report::Comparison;

/// The table, without a line break at its end.
pub fn text(comparison: &Comparison) -> String {
    let (first, last) = comparison.steps;
    let name_width = comparison.metrics.iter().map(|it| it.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{:name_width$}  {:>12}  {:>12}",
        "held-out rows",
        format!("step {first}"),
        format!("step {last}"),
    )];
    for metric in &comparison.metrics {
        let confidence = metric.confidence.map(|(low, high)| format!("(95%: {low:.2} to {high:.2})"));
        let remark = format!("{} {}", metric.verdict(), confidence.unwrap_or_default());
        let (before, after) = (metric.before, metric.after);
        let line = format!("{:name_width$}  {before:>12.4}  {after:>12.4}  {}", metric.name, remark.trim());
        lines.push(line.trim_end().to_string());
    }
    for sample in &comparison.samples {
        lines.push(String::new());
        let mut part = |name: &str, text: &str| {
            let text = format!("{name:<9} {}", text.trim().replace('\n', "\n          "));
            lines.extend(text.lines().map(|it| it.trim_end().to_string()));
        };
        part("asked", &sample.prompt);
        if let Some(reference) = &sample.reference {
            part("expected", reference);
        }
        part(&format!("step {first}"), &sample.before);
        part(&format!("step {last}"), &sample.after);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_data::Direction;
    use fthost_run::report::{ComparedAnswer, ComparedMetric};

    #[test]
    fn a_table_and_two_answers() {
        let metric = |name: &str, before, after, direction, confidence| ComparedMetric {
            name: name.into(),
            before,
            after,
            direction,
            confidence,
        };
        let comparison = Comparison {
            steps: (0, 20),
            metrics: vec![
                metric("loss", 0.7554, 0.0547, Some(Direction::LowerIsBetter), None),
                metric("rewards/json-match/std", 0.1761, 0.055, None, None),
                metric("e/exact_match", 0.0, 0.75, Some(Direction::HigherIsBetter), Some((0.58, 0.87))),
            ],
            samples: vec![ComparedAnswer {
                prompt: "Text: Ada, 36\nJSON:".into(),
                reference: Some("{\"name\": \"Ada\"}".into()),
                before: "Ada is 36.\nShe lives.".into(),
                after: "{\"name\": \"Ada\"}".into(),
            }],
        };
        insta::assert_snapshot!(text(&comparison), @r#"
        held-out rows                 step 0       step 20
        loss                          0.7554        0.0547  better
        rewards/json-match/std        0.1761        0.0550
        e/exact_match                 0.0000        0.7500  better (95%: 0.58 to 0.87)

        asked     Text: Ada, 36
                  JSON:
        expected  {"name": "Ada"}
        step 0    Ada is 36.
                  She lives.
        step 20   {"name": "Ada"}
        "#);
    }
}
