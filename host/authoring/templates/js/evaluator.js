
let graded = [];

export const evaluate = {
  grade: (samples) => samples.map(gradeOne),

  finish() {
    const values = graded;
    graded = [];
    if (values.length === 0) return [];
    const value = values.reduce((sum, it) => sum + it, 0) / values.length;
    const count = BigInt(values.length);
    return [{ name: 'exact', value, direction: 'higher-is-better', confidence: undefined, count }];
  },
};

function gradeOne({ id, completion, reference }) {
  if (reference === undefined) return { id, values: [], note: 'no expected answer' };
  const exact = Number(same(completion.text.trim(), reference.trim()));
  graded.push(exact);
  return { id, values: [['exact', exact]], note: undefined };
}

function same(answer, expected) {
  return answer === expected || (config.ignore_case && answer.toLowerCase() === expected.toLowerCase());
}
