//! New tasks like those of the batch: a model goes on with a numbered list of seeds, what is new is kept, and the model
//! answers it. Self-Instruct: <https://arxiv.org/abs/2212.10560>.

use fthost_plugin_sdk::model::Model;
use fthost_plugin_sdk::{
    Augmented, Augmenter, ConfigProblem, Example, Variant, export, plugin_config, random,
};
use row_tools::ask::{self, Asking};
use row_tools::{check, example};

mod filter;
mod list;

use filter::Pool;

/// `[plugins.self-instruct.config]`.
#[plugin_config]
struct Config {
    /// Seeds that the model is shown in each request.
    #[default = 6]
    shots: u32,
    /// Of these, at most so many are tasks that the model wrote itself.
    #[default = 2]
    own_shots: u32,
    /// New tasks that are asked for in each request.
    #[default = 4]
    tasks: u32,
    /// One request for so many examples of the batch.
    #[default = 4]
    examples_per_request: u32,
    /// What stands above the list.
    #[default = "Come up with new and different tasks. Each must make sense by itself. Go on with the list:"]
    opening: String,
    /// What stands above the new conversations; nothing where empty.
    #[default = ""]
    system: String,
    /// Which tasks are kept.
    #[default]
    filter: filter::Filter,
    /// Who is asked, and how.
    #[default]
    asking: Asking,
}

struct SelfInstruct {
    config: Config,
    model: Model,
    pool: Pool,
}

impl TryFrom<Config> for SelfInstruct {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        check::positive("shots", config.shots)?;
        check::positive("tasks", config.tasks)?;
        check::positive("examples_per_request", config.examples_per_request)?;
        if config.own_shots >= config.shots {
            let message = format!("must be below `shots`, got `{}`", config.own_shots);
            return Err(ConfigProblem::new("own_shots", message));
        }
        config.filter.checked()?;
        let model = config.asking.checked("asking")?;
        let pool = Pool::new(config.filter.clone());
        Ok(Self { config, model, pool })
    }
}

/// `count` different places of `all`, drawn.
fn drawn(all: usize, count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..all).collect();
    let count = count.min(all);
    (0..count)
        .map(|_| places.swap_remove(usize::try_from(random::below(places.len() as u64)).unwrap_or(0)))
        .collect()
}

impl SelfInstruct {
    fn question(&self, seeds: &[String]) -> String {
        let own = drawn(self.pool.written().len(), self.config.own_shots as usize);
        let seeds_shown = drawn(seeds.len(), self.config.shots as usize - own.len());
        let shown = seeds_shown.into_iter().map(|at| &seeds[at]);
        let shown = shown.chain(own.into_iter().map(|at| &self.pool.written()[at]));
        list::question(&self.config.opening, shown.map(String::as_str), self.config.tasks)
    }

    /// The new tasks of each request.
    fn tasks(&mut self, seeds: &[String], requests: usize) -> Result<Vec<Vec<String>>, String> {
        let questions: Vec<String> = (0..requests).map(|_| self.question(seeds)).collect();
        let answers = self.config.asking.ask(&self.model, questions, 1)?;
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers.into_iter().flatten() {
            let mut kept = Vec::new();
            for task in list::tasks(&answer) {
                if kept.len() < self.config.tasks as usize && self.pool.admit(seeds, &task) {
                    kept.push(task);
                }
            }
            all.push(kept);
        }
        Ok(all)
    }
}

impl Augmenter for SelfInstruct {
    fn augment(&mut self, example: &Example) -> Augmented {
        ask::only(self.augment_all(std::slice::from_ref(example)))
    }

    /// Two requests for the batch: tasks, then their answers. The variants of a request belong to its first example.
    fn augment_all(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, String> {
        let prompts = examples.iter().enumerate();
        let prompts =
            prompts.filter_map(|(at, it)| Some((at, example::prompt(&it.content)?.trim().to_owned())));
        let (places, seeds): (Vec<usize>, Vec<String>) = prompts.filter(|it| !it.1.is_empty()).unzip();
        let step = self.config.examples_per_request as usize;
        let tasks = self.tasks(&seeds, seeds.len().div_ceil(step))?;
        let owned: Vec<(usize, String)> = tasks
            .into_iter()
            .enumerate()
            .flat_map(|(request, tasks)| tasks.into_iter().map(move |task| (request * step, task)))
            .map(|(seed, task)| (places[seed], task))
            .collect();
        let answers =
            self.config.asking.ask(&self.model, owned.iter().map(|it| it.1.clone()).collect(), 1)?;
        let mut augmented = vec![Augmented::default(); examples.len()];
        for ((at, task), answers) in owned.into_iter().zip(answers) {
            let answer = answers.first().map_or("", |it| it.trim());
            // The paper leaves out answers that are empty or repeat the task.
            if !answer.is_empty() && answer != task {
                let example =
                    example::pair(examples[at].row, &self.config.system, task, answer.to_owned(), true);
                augmented[at].variants.push(Variant { example, operation: "self-instruct".into() });
            }
        }
        Ok(augmented)
    }
}

export!(augmenter: SelfInstruct from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use row_tools::script::Script;
    use serde_json::{Value, json};

    fn made(config: Value) -> Result<SelfInstruct, String> {
        testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())
    }

    fn seeds() -> Vec<Example> {
        let prompts =
            ["Name three rivers of Europe.", "Explain why the sky is blue.", "Write a haiku about snow."];
        prompts.iter().map(|it| example::pair(8, "", (*it).into(), "a".into(), true)).collect()
    }

    fn shown(it: &Augmented) -> Vec<String> {
        let one = |it: &Variant| {
            let content = &it.example.content;
            format!("{} -> {}", example::prompt(content).unwrap(), example::completion(content).unwrap())
        };
        it.variants.iter().map(one).collect()
    }

    #[test]
    fn the_model_goes_on_with_the_list_and_answers_what_is_new() {
        let script = Script::new(&[
            " List five kinds of bread.\nTask 5: Explain why the sky is so blue.\nTask 6: Draw an image of a cat on a mat.\n\
             Task 7: 请把下面的句子翻译成英文：今天天气很好。",
            "Rye, ...",
            "The weather is fine today.",
        ]);
        let mut plugin = made(json!({})).unwrap();
        let all = testing::with_host(script.clone(), || testing::augment(&mut plugin, seeds())).unwrap();
        // The second is nearly a seed, the third asks for a picture.
        assert_eq!(
            shown(&all[0]),
            [
                "List five kinds of bread. -> Rye, ...",
                "请把下面的句子翻译成英文：今天天气很好。 -> The weather is fine today."
            ]
        );
        assert!(all[1].variants.is_empty() && all[2].variants.is_empty());
        let asked = script.asked();
        assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
        assert!(asked[0][0].contains("Task 3: ") && asked[0][0].ends_with("Task 4:"), "{}", asked[0][0]);
    }

    #[test]
    fn a_request_serves_so_many_examples_and_the_pool_lasts() {
        let script = Script::new(&[
            "Name two famous bridges.",
            "Name three famous bridges.",
            "one",
            "Name two famous bridges.",
        ]);
        let mut plugin = made(json!({"examples_per_request": 2})).unwrap();
        let (first, second) = testing::with_host(script, || {
            (
                testing::augment(&mut plugin, seeds()).unwrap(),
                testing::augment(&mut plugin, seeds()[..1].to_vec()).unwrap(),
            )
        });
        // The second request of the first batch, and the next batch, give nothing new.
        assert_eq!(first.iter().map(|it| it.variants.len()).collect::<Vec<_>>(), [1, 0, 0]);
        assert!(second[0].variants.is_empty());
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |config| made(config).err().unwrap();
        assert_eq!(key(json!({"shots": 0})), "shots");
        assert_eq!(key(json!({"shots": 2, "own_shots": 2})), "own_shots");
        assert_eq!(key(json!({"tasks": 0})), "tasks");
        assert_eq!(key(json!({"filter": {"max_similarity": 1.5}})), "filter.max_similarity");
        assert_eq!(key(json!({"filter": {"min_words": 9, "max_words": 8}})), "filter.min_words");
    }
}
