
export const score = {
  score: (groups) => groups.map(scoreGroup),
};

function scoreGroup(group) {
  const expected = JSON.parse(group.columns)[config.column];
  if (typeof expected !== 'string') {
    return group.completions.map(() => ({ tag: 'abstain', val: `no text in column \`${config.column}\`` }));
  }
  return group.completions.map((it) => ({ tag: 'ok', val: compare(it.text, expected.trim()) }));
}

// 1 for the expected answer, 0.5 for one that holds it.
function compare(answer, expected) {
  const exact = answer.trim() === expected;
  const contains = answer.includes(expected);
  const value = exact ? 1 : contains ? 0.5 : 0;
  return { value, components: [['exact', Number(exact)], ['contains', Number(contains)]] };
}
