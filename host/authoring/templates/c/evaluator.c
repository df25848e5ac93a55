// {{ description }}.
#include "fthost.h"
#include "this_plugin.h"

static const char SCHEMA[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"ignore_case\":{\"type\":\"boolean\","
    "\"default\":false,\"description\":\"Whether upper and lower case (of ASCII) are the same.\"}}}";

static bool ignore_case;
static uint64_t graded;
static double right;

// A copy that the host frees.
static this_plugin_string_t owned(fthost_span span) {
  uint8_t *copy = malloc(span.len + 1);
  memcpy(copy, span.at, span.len);
  return (this_plugin_string_t){copy, span.len};
}

static fthost_span span_of(this_plugin_string_t text) { return (fthost_span){(const char *)text.ptr, text.len}; }

void exports_fthost_plugin_about_describe(exports_fthost_plugin_about_description_t *ret) {
  ret->name = owned(fthost_span_of("{{ name }}"));
  ret->version = owned(fthost_span_of("0.1.0"));
  ret->summary = owned(fthost_span_of("{{ description }}"));
  ret->config_schema = owned(fthost_span_of(SCHEMA));
}

// The host has checked the configuration against the schema: only known keys arrive, of the right kind.
bool exports_fthost_plugin_about_configure(exports_fthost_plugin_about_json_t *config,
                                           exports_fthost_plugin_about_list_config_problem_t *err) {
  (void)err;
  fthost_span rest = span_of(*config), key, value;
  while (fthost_member(&rest, &key, &value)) ignore_case = fthost_is(value, fthost_span_of("true"));
  return true;
}

static char lower(char c) { return ignore_case && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static bool same(fthost_span answer, fthost_span expected) {
  if (answer.len != expected.len) return false;
  for (size_t i = 0; i < answer.len; i++)
    if (lower(answer.at[i]) != lower(expected.at[i])) return false;
  return true;
}

bool exports_fthost_plugin_evaluate_grade(exports_fthost_plugin_evaluate_list_sample_t *samples,
                                          exports_fthost_plugin_evaluate_list_detail_t *ret, this_plugin_string_t *err) {
  (void)err;
  ret->len = samples->len;
  ret->ptr = calloc(samples->len + 1, sizeof *ret->ptr);
  for (size_t i = 0; i < samples->len; i++) {
    fthost_plugin_types_sample_t *sample = &samples->ptr[i];
    fthost_plugin_types_detail_t *detail = &ret->ptr[i];
    detail->id = sample->id;
    if (!sample->reference.is_some) {
      detail->note.is_some = true;
      detail->note.val = owned(fthost_span_of("no expected answer"));
      continue;
    }
    double exact = same(fthost_trimmed(span_of(sample->completion.text)), fthost_trimmed(span_of(sample->reference.val)));
    graded += 1;
    right += exact;
    detail->values.len = 1;
    detail->values.ptr = malloc(sizeof *detail->values.ptr);
    detail->values.ptr[0].f0 = owned(fthost_span_of("exact"));
    detail->values.ptr[0].f1 = exact;
  }
  exports_fthost_plugin_evaluate_list_sample_free(samples);
  return true;
}

bool exports_fthost_plugin_evaluate_finish(exports_fthost_plugin_evaluate_list_metric_t *ret, this_plugin_string_t *err) {
  (void)err;
  ret->len = graded > 0 ? 1 : 0;
  ret->ptr = calloc(1, sizeof *ret->ptr);
  if (graded > 0) {
    ret->ptr[0].name = owned(fthost_span_of("exact"));
    ret->ptr[0].value = right / (double)graded;
    ret->ptr[0].direction = FTHOST_PLUGIN_TYPES_DIRECTION_HIGHER_IS_BETTER;
    ret->ptr[0].count = graded;
  }
  graded = 0;
  right = 0;
  return true;
}
