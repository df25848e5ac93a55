//! Contract 1, the version in work: rewards know what a group is scored for, and how long the run is.

contract_bindings!(
    "../../wit",
    "
        package fthost:host;
        world imports {
            import fthost:plugin/log@1.0.0;
            import fthost:plugin/random@1.0.0;
            import fthost:plugin/resources@1.0.0;
            import fthost:plugin/generate@1.0.0;
            import fthost:plugin/logprobs@1.0.0;
            import fthost:plugin/embed@1.0.0;
        }
    "
);

use fthost_data::{EvalSample, Group, Purpose};

use crate::contract::json;

contract_since_0_2!();

fn group_to(group: &Group) -> wit::Group {
    wit::Group {
        id: group.id,
        step: group.step,
        steps: group.occasion.steps,
        purpose: match group.occasion.purpose {
            Purpose::Training => wit::Purpose::Training,
            Purpose::Evaluation => wit::Purpose::Evaluation,
        },
        prompt: prompt_to(&group.prompt),
        completions: group.completions.iter().map(candidate_to).collect(),
        max_tokens: group.occasion.max_tokens,
        columns: json(&group.columns),
    }
}

fn sample_to(sample: &EvalSample) -> wit::Sample {
    wit::Sample {
        id: sample.id,
        step: sample.step,
        steps: sample.steps,
        prompt: prompt_to(&sample.prompt),
        completion: candidate_to(&sample.completion),
        reference: sample.reference.clone(),
        columns: json(&sample.columns),
    }
}
