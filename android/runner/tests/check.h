// Checks that stay on in release builds, unlike assert.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "failure.h"

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

// The status of the Failure that a call throws, or ok.
template <typename Call>
Exit status_of(Call call) {
  try {
    call();
  } catch (const Failure& failure) {
    return failure.status();
  }
  return Exit::ok;
}
