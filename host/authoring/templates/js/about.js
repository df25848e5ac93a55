// {{ description }}.

// Each key with its default; the JSON Schema is made of it.
const CONFIG = {{ config_js }};
const SUMMARIES = {{ summaries_js }};
let config = { ...CONFIG };

export const about = {
  describe() {
    const property = ([key, value]) => [key, { type: typeof value, default: value, description: SUMMARIES[key] }];
    const properties = Object.fromEntries(Object.entries(CONFIG).map(property));
    const schema = { type: 'object', properties, additionalProperties: false };
    return { name: '{{ name }}', version: '0.1.0', summary: '{{ description }}', configSchema: JSON.stringify(schema) };
  },

  configure(text) {
    const given = JSON.parse(text);
    const problems = [];
    for (const [key, value] of Object.entries(given)) {
      if (!(key in CONFIG)) {
        problems.push({ key, message: `unknown key, expected one of ${Object.keys(CONFIG).join(', ')}` });
      } else if (typeof value !== typeof CONFIG[key]) {
        problems.push({ key, message: `must be a ${typeof CONFIG[key]}, got \`${JSON.stringify(value)}\`` });
      }
    }
    if (problems.length > 0) throw problems;
    config = { ...CONFIG, ...given };
  },
};
