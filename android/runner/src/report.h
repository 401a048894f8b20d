// From the command line to the two files: load, first run, warm-up, recorded runs.
#pragma once

#include "options.h"

constexpr int kSchemaVersion = 1;

// Writes options.output (JSON) and options.logits (raw float32); Failure tells what went wrong.
void measure_and_report(const Options& options);
