#include "options.h"

#include "check.h"

namespace {

const std::vector<std::string> kRequired = {"--library", "l.so", "--model",  "m.onnx", "--input",
                                            "i.bin",     "--output", "o.json", "--logits", "l.bin"};

std::vector<std::string> with(const std::vector<std::string>& more) {
  std::vector<std::string> all = kRequired;
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

Exit parsing(const std::vector<std::string>& arguments) {
  return status_of([&] { parse(arguments); });
}

}  // namespace

int main() {
  const Options defaults = parse(kRequired);
  CHECK(defaults.library == "l.so" && defaults.logits == "l.bin");
  CHECK(defaults.iterations == 1024 && defaults.seconds == 60.0);

  const Options chosen = parse(with({"--threads", "4", "--seconds", "2.5", "--warmup", "0", "--length", "128"}));
  CHECK(chosen.threads == 4 && chosen.seconds == 2.5 && chosen.warmup == 0 && chosen.length == 128);

  CHECK(parsing({}) == Exit::usage);
  CHECK(parsing(with({"--threads"})) == Exit::usage);
  for (const char* wrong : {"0", "-1", "x", "4x", "", "99999999999999999999"})
    CHECK(parsing(with({"--threads", wrong})) == Exit::usage);
  for (const char* wrong : {"-2", "nan", "inf", "1s", ""})
    CHECK(parsing(with({"--seconds", wrong})) == Exit::usage);
  CHECK(parsing(with({"--warm-up", "1"})) == Exit::usage);
}
