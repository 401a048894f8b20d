// Measures one ONNX model on the CPU; what it is asked and what it writes stand in options.h and report.cpp.
// A failure is one line on standard error and an exit status from failure.h.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "failure.h"
#include "options.h"
#include "report.h"

int main(int count, char** values) {
  try {
    measure_and_report(parse({values + 1, values + count}));
    return static_cast<int>(Exit::ok);
  } catch (const Failure& failure) {
    std::fprintf(stderr, "runner: %s\n", failure.what());
    return static_cast<int>(failure.status());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "runner: %s\n", error.what());
    return 1;
  }
}
