// Reward the expected answer in an answer tag, and a little for the tag alone.
#include "fthost.h"
#include "this_plugin.h"

static const char SCHEMA[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
    "\"column\":{\"type\":\"string\",\"default\":\"answer\",\"description\":\"The column that holds the expected answer.\"},"
    "\"partial\":{\"type\":\"number\",\"default\":0.1,\"description\":\"The score of a tag with another answer.\"}}}";

static fthost_span column = {"answer", 6};
static double partial = 0.1;

// A copy that the host frees.
static this_plugin_string_t owned(fthost_span span) {
  uint8_t *copy = malloc(span.len + 1);
  memcpy(copy, span.at, span.len);
  return (this_plugin_string_t){copy, span.len};
}

static fthost_span span_of(this_plugin_string_t text) { return (fthost_span){(const char *)text.ptr, text.len}; }

void exports_fthost_plugin_about_describe(exports_fthost_plugin_about_description_t *ret) {
  ret->name = owned(fthost_span_of("answer-tag-c"));
  ret->version = owned(fthost_span_of("0.1.0"));
  ret->summary = owned(fthost_span_of("Reward the expected answer in an answer tag, and a little for the tag alone"));
  ret->config_schema = owned(fthost_span_of(SCHEMA));
}

// The host has checked the configuration against the schema: only known keys arrive, of the right kind.
bool exports_fthost_plugin_about_configure(exports_fthost_plugin_about_json_t *config,
                                           exports_fthost_plugin_about_list_config_problem_t *err) {
  (void)err;
  fthost_span rest = span_of(*config), key, value;
  while (fthost_member(&rest, &key, &value)) {
    if (fthost_is(key, fthost_span_of("column"))) fthost_text(value, &column);
    if (fthost_is(key, fthost_span_of("partial"))) partial = strtod(value.at, NULL);
  }
  return true;
}

// Where `mark` begins in `text`, the first time or the last; `text.len` where it does not.
static size_t find(fthost_span text, const char *mark, bool last) {
  size_t found = text.len, length = strlen(mark);
  for (size_t i = 0; i + length <= text.len; i++) {
    if (memcmp(text.at + i, mark, length) != 0) continue;
    found = i;
    if (!last) break;
  }
  return found;
}

// What stands in the last tag, if it is closed.
static bool tagged(fthost_span text, fthost_span *inside) {
  const char *open = "<answer>";
  size_t opened = find(text, open, true);
  if (opened == text.len) return false;
  opened += strlen(open);
  fthost_span rest = {text.at + opened, text.len - opened};
  size_t closed = find(rest, "</answer>", false);
  *inside = fthost_trimmed((fthost_span){rest.at, closed});
  return closed < rest.len;
}

static void score_one(fthost_span text, fthost_span expected, fthost_plugin_types_outcome_t *outcome) {
  fthost_span inside;
  bool format = tagged(text, &inside), correct = format && fthost_is(inside, expected);
  fthost_plugin_types_score_t *score = &outcome->val.ok;
  outcome->tag = FTHOST_PLUGIN_TYPES_OUTCOME_OK;
  score->value = correct ? 1.0 : format ? partial : 0.0;
  score->components.len = 2;
  score->components.ptr = malloc(2 * sizeof *score->components.ptr);
  score->components.ptr[0].f0 = owned(fthost_span_of("format"));
  score->components.ptr[0].f1 = format;
  score->components.ptr[1].f0 = owned(fthost_span_of("correct"));
  score->components.ptr[1].f1 = correct;
}

static void abstain(fthost_plugin_types_outcome_t *outcome) {
  const char *before = "no text in column `";
  size_t length = strlen(before);
  char *reason = malloc(length + column.len + 1);
  memcpy(reason, before, length);
  memcpy(reason + length, column.at, column.len);
  reason[length + column.len] = '`';
  outcome->tag = FTHOST_PLUGIN_TYPES_OUTCOME_ABSTAIN;
  outcome->val.abstain = (this_plugin_string_t){(uint8_t *)reason, length + column.len + 1};
}

bool exports_fthost_plugin_score_score(exports_fthost_plugin_score_list_group_t *groups,
                                       exports_fthost_plugin_score_list_list_outcome_t *ret,
                                       this_plugin_string_t *err) {
  (void)err;
  ret->len = groups->len;
  ret->ptr = calloc(groups->len + 1, sizeof *ret->ptr);
  for (size_t i = 0; i < groups->len; i++) {
    fthost_plugin_types_group_t *group = &groups->ptr[i];
    fthost_span expected = {0};
    bool known = fthost_member_text(span_of(group->columns), column, &expected);
    ret->ptr[i].len = group->completions.len;
    ret->ptr[i].ptr = calloc(group->completions.len + 1, sizeof *ret->ptr[i].ptr);
    for (size_t j = 0; j < group->completions.len; j++) {
      if (known) score_one(span_of(group->completions.ptr[j].text), fthost_trimmed(expected), &ret->ptr[i].ptr[j]);
      else abstain(&ret->ptr[i].ptr[j]);
    }
    free((void *)expected.at);
  }
  exports_fthost_plugin_score_list_group_free(groups);
  return true;
}
