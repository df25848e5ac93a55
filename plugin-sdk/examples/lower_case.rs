//! An augmenter: plain texts once more in lower case.
use fthost_plugin_sdk::{Augmented, Augmenter, Content, Example, Variant, export};

struct LowerCase;

impl Augmenter for LowerCase {
    fn augment(&mut self, example: &Example) -> Augmented {
        let Content::Text(text) = &example.content else { return Augmented::default() };
        let example = Example { content: Content::Text(text.to_lowercase()), ..example.clone() };
        vec![Variant { example, operation: "lower-case".into() }].into()
    }
}

export!(augmenter: LowerCase);
