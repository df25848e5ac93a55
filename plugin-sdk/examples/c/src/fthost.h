// Reading the JSON that the host hands over: members of one object, and the text of strings. Allocates with malloc.
#ifndef FTHOST_H
#define FTHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Bytes of UTF-8 that end without a zero.
typedef struct {
  const char *at;
  size_t len;
} fthost_span;

static inline fthost_span fthost_span_of(const char *text) { return (fthost_span){text, strlen(text)}; }

static inline bool fthost_is(fthost_span span, fthost_span other) {
  return span.len == other.len && memcmp(span.at, other.at, span.len) == 0;
}

// Without white space at both ends.
static inline fthost_span fthost_trimmed(fthost_span it) {
  while (it.len > 0 && strchr(" \t\r\n", it.at[0]) != NULL && it.at[0] != 0) it.at++, it.len--;
  while (it.len > 0 && strchr(" \t\r\n", it.at[it.len - 1]) != NULL && it.at[it.len - 1] != 0) it.len--;
  return it;
}

static inline bool fthost_contains(fthost_span text, fthost_span part) {
  for (size_t i = 0; i + part.len <= text.len; i++)
    if (memcmp(text.at + i, part.at, part.len) == 0) return true;
  return false;
}

// The end of the JSON value at `at`: strings and nesting are skipped whole.
static inline const char *fthost_value_end(const char *at, const char *end) {
  size_t depth = 0;
  for (bool text = false; at < end; at++) {
    if (text) {
      if (*at == '\\') at++;
      else if (*at == '"') text = false;
    } else if (*at == '"') text = true;
    else if (*at == '{' || *at == '[') depth++;
    else if ((*at == '}' || *at == ']' || *at == ',') && depth == 0) break;
    else if (*at == '}' || *at == ']') depth--;
  }
  return at < end ? at : end;
}

// The next member of the object in `rest`, which begins as the whole object; false at its end. Key and value are as
// written: a key between its quotes, a value with them.
static inline bool fthost_member(fthost_span *rest, fthost_span *key, fthost_span *value) {
  const char *at = rest->at, *end = rest->at + rest->len;
  while (at < end && *at != '"' && *at != '}') at++;
  if (at >= end || *at == '}') return false;
  key->at = ++at;
  while (at < end && *at != '"') at += *at == '\\' ? 2 : 1;
  if (at >= end) return false;
  key->len = (size_t)(at - key->at);
  while (at < end && *at != ':') at++;
  value->at = at < end ? at + 1 : end;
  at = fthost_value_end(value->at, end);
  value->len = (size_t)(at - value->at);
  *value = fthost_trimmed(*value);
  *rest = (fthost_span){at, (size_t)(end - at)};
  return true;
}

static inline uint32_t fthost_hex4(const char *at) {
  uint32_t code = 0;
  for (int i = 0; i < 4; i++) {
    char c = at[i];
    code = code * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
  }
  return code;
}

static inline char *fthost_put(char *to, uint32_t code) {
  if (code < 0x80) {
    *to++ = (char)code;
  } else if (code < 0x800) {
    *to++ = (char)(0xc0 | code >> 6), *to++ = (char)(0x80 | (code & 63));
  } else if (code < 0x10000) {
    *to++ = (char)(0xe0 | code >> 12), *to++ = (char)(0x80 | (code >> 6 & 63)), *to++ = (char)(0x80 | (code & 63));
  } else {
    *to++ = (char)(0xf0 | code >> 18), *to++ = (char)(0x80 | (code >> 12 & 63));
    *to++ = (char)(0x80 | (code >> 6 & 63)), *to++ = (char)(0x80 | (code & 63));
  }
  return to;
}

// The text of a JSON string, its escapes resolved; false for any other value. `text->at` is the caller's to free.
static inline bool fthost_text(fthost_span value, fthost_span *text) {
  if (value.len < 2 || value.at[0] != '"') return false;
  const char *at = value.at + 1, *end = value.at + value.len - 1;
  char *made = malloc(value.len), *to = made;
  while (at < end) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    char escape = at[1];
    at += 2;
    if (escape == 'u') {
      uint32_t code = fthost_hex4(at);
      at += 4;
      if (code >= 0xd800 && code < 0xdc00 && end - at >= 6) {
        code = 0x10000 + ((code - 0xd800) << 10) + (fthost_hex4(at + 2) - 0xdc00);
        at += 6;
      }
      to = fthost_put(to, code);
    } else {
      const char *from = "nrtbf", *is = "\n\r\t\b\f", *found = strchr(from, escape);
      *to++ = found ? is[found - from] : escape;
    }
  }
  *text = (fthost_span){made, (size_t)(to - made)};
  return true;
}

// The text of the member `key`; false where there is none, or no text.
static inline bool fthost_member_text(fthost_span object, fthost_span key, fthost_span *text) {
  fthost_span name, value;
  while (fthost_member(&object, &name, &value))
    if (fthost_is(name, key)) return fthost_text(value, text);
  return false;
}

#endif
