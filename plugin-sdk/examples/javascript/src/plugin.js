// Reward the expected answer in an answer tag, and a little for the tag alone.

const SCHEMA = {
  type: 'object',
  additionalProperties: false,
  properties: {
    column: { type: 'string', default: 'answer', description: 'The column that holds the expected answer.' },
    partial: { type: 'number', default: 0.1, description: 'The score of a tag with another answer.' },
  },
};
const SUMMARY = 'Reward the expected answer in an answer tag, and a little for the tag alone';
let config = { column: 'answer', partial: 0.1 };

export const about = {
  describe: () => ({
    name: 'answer-tag-javascript',
    version: '0.1.0',
    summary: SUMMARY,
    configSchema: JSON.stringify(SCHEMA),
  }),

  configure(text) {
    const problems = [];
    for (const [key, value] of Object.entries(JSON.parse(text))) {
      const known = SCHEMA.properties[key];
      if (known === undefined) {
        problems.push({ key, message: 'unknown key' });
      } else if (typeof value !== known.type) {
        problems.push({ key, message: `must be a ${known.type}, got \`${JSON.stringify(value)}\`` });
      } else {
        config[key] = value;
      }
    }
    if (problems.length > 0) throw problems;
  },
};

export const score = {
  score: (groups) => groups.map(scoreGroup),
};

function scoreGroup(group) {
  const expected = JSON.parse(group.columns)[config.column];
  if (typeof expected !== 'string') {
    return group.completions.map(() => ({ tag: 'abstain', val: `no text in column \`${config.column}\`` }));
  }
  return group.completions.map((it) => ({ tag: 'ok', val: scoreOne(it.text, expected.trim()) }));
}

function scoreOne(text, expected) {
  const found = tagged(text);
  const format = found !== undefined;
  const correct = found === expected;
  const value = correct ? 1 : format ? config.partial : 0;
  return { value, components: [['format', Number(format)], ['correct', Number(correct)]] };
}

// What stands in the last tag, if it is closed.
function tagged(text) {
  const opened = text.lastIndexOf('<answer>');
  const closed = opened < 0 ? -1 : text.indexOf('</answer>', opened);
  return closed < 0 ? undefined : text.slice(opened + '<answer>'.length, closed).trim();
}
