// ONNX Runtime's C API, opened with dlopen, so that one binary serves whatever library lies beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct Tokens {
  std::int64_t batch, length;
  std::vector<std::int64_t> ids, mask;  // batch x length each
};

struct Logits {
  std::vector<std::int64_t> shape;  // batch, length, vocabulary
  std::vector<float> values;
};

class Runtime {
 public:
  explicit Runtime(const std::string& library);  // Failure (library)
  ~Runtime();
  std::string version() const;

  void load(const std::string& model, int threads);  // Failure (model)
  void bind(Tokens& tokens);                         // the tokens must outlive the runs; Failure (model)
  void run();                                        // Failure (inference)
  Logits logits() const;                             // of the last run; Failure (inference)

 private:
  struct Handles;
  std::unique_ptr<Handles> handles_;
};
