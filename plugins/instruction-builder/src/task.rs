//! Tasks in several phrasings, the more the less a model learns one wording by heart.

use fthost_plugin_sdk::plugin_config;

/// What a row is about; each task names the columns it takes.
#[plugin_config]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `instruction`, `input` where there is one, `output`.
    General,
    /// `question`, `context` where there is one, `answer`.
    QuestionAnswering,
    /// `text`, `summary`.
    Summarisation,
    /// `source`, `target`, `target_language`, and `source_language` where there is one.
    Translation,
}

/// Of the phrasings; what a row holds may be in any.
#[plugin_config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese, simplified.
    Chinese,
}

/// An instruction is a phrasing already: only where the input stands differs.
const GENERAL: [&str; 4] = [
    "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}",
    "{% if input %}{{ input }}\n\n{% endif %}{{ instruction }}",
    "{{ instruction }}{% if input %}\n\n\"\"\"\n{{ input }}\n\"\"\"{% endif %}",
    "{{ instruction }}{% if input %}\n\n---\n{{ input }}\n---{% endif %}",
];

const QUESTION: [&str; 5] = [
    "{% if context %}{{ context }}\n\n{% endif %}{{ question }}",
    "{% if context %}Read the passage and answer the question.\n\n{{ context }}\n\n{% endif %}Question: {{ question }}",
    "{{ question }}{% if context %}\n\nUse this text to answer:\n{{ context }}{% endif %}",
    "Answer the question{% if context %} from the text below{% endif %}: {{ question }}{% if context %}\n\nText: {{ context }}{% endif %}",
    "{% if context %}Context: {{ context }}\n\nBased on the context: {% else %}Give a correct answer: {% endif %}{{ question }}",
];

const QUESTION_CHINESE: [&str; 5] = [
    "{% if context %}材料：{{ context }}\n\n{% endif %}问题：{{ question }}",
    "{% if context %}请阅读下面的材料并回答问题。\n\n{{ context }}\n\n{% else %}请回答问题：{% endif %}{{ question }}",
    "请回答：{{ question }}{% if context %}\n\n可参考以下内容：\n{{ context }}{% endif %}",
    "{% if context %}根据以下文字回答问题。\n\n文字：{{ context }}\n\n{% endif %}提问：{{ question }}",
    "请给出正确答案：{{ question }}{% if context %}\n\n背景：{{ context }}{% endif %}",
];

const SUMMARY: [&str; 5] = [
    "Summarise the following text.\n\n{{ text }}",
    "{{ text }}\n\nGive a short summary of the text above.",
    "What are the main points of this text?\n\n{{ text }}",
    "Write a brief summary:\n\n{{ text }}",
    "Read this and say in a few sentences what it is about.\n\n{{ text }}",
];

const SUMMARY_CHINESE: [&str; 5] = [
    "请概括下面的文字。\n\n{{ text }}",
    "{{ text }}\n\n请为上文写一段简短的摘要。",
    "这段文字的主要内容是什么？\n\n{{ text }}",
    "请写出摘要：\n\n{{ text }}",
    "阅读以下内容，用几句话说明它讲了什么。\n\n{{ text }}",
];

const TRANSLATION: [&str; 5] = [
    "Translate {% if source_language %}from {{ source_language }} {% endif %}into {{ target_language }}:\n\n{{ source }}",
    "{{ source }}\n\nTranslate the text above into {{ target_language }}.",
    "How do you say this in {{ target_language }}?\n\n{{ source }}",
    "Give the {{ target_language }} translation of the following{% if source_language %} {{ source_language }}{% endif %} text.\n\n{{ source }}",
    "{% if source_language %}{{ source_language }}{% else %}Text{% endif %}: {{ source }}\n{{ target_language }}:",
];

const TRANSLATION_CHINESE: [&str; 5] = [
    "请{% if source_language %}将下面的{{ source_language }}{% else %}把下面的文字{% endif %}翻译成{{ target_language }}：\n\n{{ source }}",
    "{{ source }}\n\n请把上文翻译成{{ target_language }}。",
    "这句话用{{ target_language }}怎么说？\n\n{{ source }}",
    "请给出以下内容的{{ target_language }}译文。\n\n{{ source }}",
    "原文：{{ source }}\n{{ target_language }}译文：",
];

impl Task {
    /// Phrasings and completion.
    pub fn templates(self, language: Language) -> (&'static [&'static str], &'static str) {
        let phrasings: &'static [&'static str] = match (self, language) {
            (Self::General, _) => &GENERAL,
            (Self::QuestionAnswering, Language::English) => &QUESTION,
            (Self::QuestionAnswering, Language::Chinese) => &QUESTION_CHINESE,
            (Self::Summarisation, Language::English) => &SUMMARY,
            (Self::Summarisation, Language::Chinese) => &SUMMARY_CHINESE,
            (Self::Translation, Language::English) => &TRANSLATION,
            (Self::Translation, Language::Chinese) => &TRANSLATION_CHINESE,
        };
        let completion = match self {
            Self::General => "{{ output }}",
            Self::QuestionAnswering => "{{ answer }}",
            Self::Summarisation => "{{ summary }}",
            Self::Translation => "{{ target }}",
        };
        (phrasings, completion)
    }
}
