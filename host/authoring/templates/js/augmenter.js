
export const augment = {
  augment: (examples) => examples.map(augmentOne),
};

const KEPT = { original: { tag: 'keep' }, variants: [] };

function augmentOne(example) {
  const { tag, val: pair } = example.content;
  if (tag !== 'prompt-completion' || pair.prompt.tag !== 'text') return KEPT;
  const words = pair.completion.val.split(/\s+/).filter((it) => it !== '');
  if (words.length === 0) return { original: { tag: 'drop', val: 'an empty answer' }, variants: [] };
  if (words.length > config.words) return KEPT;
  const prompt = { tag: 'text', val: `Answer in at most ${config.words} words. ${pair.prompt.val}` };
  const content = { tag: 'prompt-completion', val: { prompt, completion: pair.completion } };
  const variant = { example: { ...example, content }, operation: 'short-answer' };
  return { original: { tag: 'keep' }, variants: [variant] };
}
