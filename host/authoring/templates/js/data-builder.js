
export const build = {
  build: (rows) => rows.map(buildRow),
  finish: () => [],
};

function buildRow(row) {
  const columns = JSON.parse(row.columns);
  for (const column of [config.question, config.answer]) {
    if (typeof columns[column] !== 'string') {
      return { tag: 'bad-row', val: `no text in column \`${column}\`` };
    }
  }
  const prompt = { tag: 'text', val: `Q: ${columns[config.question].trim()}\nA:` };
  const completion = { tag: 'text', val: ` ${columns[config.answer].trim()}` };
  const content = { tag: 'prompt-completion', val: { prompt, completion } };
  return { tag: 'examples', val: [{ row: row.id, content, columns: '{}' }] };
}
