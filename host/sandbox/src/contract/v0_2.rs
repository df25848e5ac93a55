//! Contract 0.2, as released.

contract_bindings!(
    "../../wit/released/0.2.0",
    "
        package fthost:host;
        world imports {
            import fthost:plugin/log@0.2.0;
            import fthost:plugin/random@0.2.0;
            import fthost:plugin/resources@0.2.0;
            import fthost:plugin/generate@0.2.0;
            import fthost:plugin/logprobs@0.2.0;
            import fthost:plugin/embed@0.2.0;
        }
    "
);

use fthost_data::EvalSample;

use crate::contract::json;

contract_since_0_2!();
contract_groups_before_1!();

fn sample_to(sample: &EvalSample) -> wit::Sample {
    wit::Sample {
        id: sample.id,
        step: sample.step,
        prompt: prompt_to(&sample.prompt),
        completion: candidate_to(&sample.completion),
        reference: sample.reference.clone(),
        columns: json(&sample.columns),
    }
}
