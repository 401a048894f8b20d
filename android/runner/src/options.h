// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Options {
  std::string library;              // libonnxruntime.so
  std::string model;                // ONNX file
  std::string input;                // int64: input_ids, then attention_mask, batch x length each
  std::string output;               // JSON file to write
  std::string logits;               // raw float32 file to write, batch x length x vocabulary
  std::int64_t batch = 1;           // rows
  std::int64_t length = 64;         // tokens a row
  std::int64_t threads = 1;         // of one operator
  std::int64_t warmup = 8;          // runs that are not recorded
  std::int64_t iterations = 1024;   // recorded runs at least, and ...
  double seconds = 60.0;            // ... seconds at least that they take together: MLPerf Mobile's single stream
};

std::string usage();

// Failure (usage) for an unknown option, a missing or malformed value, or a missing required option.
Options parse(const std::vector<std::string>& arguments);
