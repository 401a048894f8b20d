#include "options.h"

#include <cmath>
#include <functional>
#include <map>

#include "failure.h"

namespace {

std::int64_t whole(const std::string& name, const std::string& text, std::int64_t least) {
  std::size_t used = 0;
  std::int64_t value = 0;
  try {
    value = std::stoll(text, &used);
  } catch (const std::logic_error&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || value < least || value > 1'000'000)
    throw Failure(Exit::usage, name + " " + text + ": want a whole number from " + std::to_string(least) + " to 1000000");
  return value;
}

double not_negative(const std::string& name, const std::string& text) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::logic_error&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || !std::isfinite(value) || value < 0)
    throw Failure(Exit::usage, name + " " + text + ": want a number of at least 0");
  return value;
}

}  // namespace

std::string usage() {
  return "runner --library libonnxruntime.so --model model.onnx --input ids.bin --output result.json --logits logits.bin "
         "[--batch 1] [--length 64] [--threads 1] [--warmup 8] [--iterations 1024] [--seconds 60]";
}

Options parse(const std::vector<std::string>& arguments) {
  Options options;
  using Setter = std::function<void(const std::string&, const std::string&)>;
  const auto text = [](std::string& place) { return [&place](auto&, const std::string& value) { place = value; }; };
  const auto number = [](std::int64_t& place, std::int64_t least) {
    return [&place, least](const std::string& name, const std::string& value) { place = whole(name, value, least); };
  };
  const std::map<std::string, Setter> setters = {
      {"--library", text(options.library)},
      {"--model", text(options.model)},
      {"--input", text(options.input)},
      {"--output", text(options.output)},
      {"--logits", text(options.logits)},
      {"--batch", number(options.batch, 1)},
      {"--length", number(options.length, 1)},
      {"--threads", number(options.threads, 1)},
      {"--warmup", number(options.warmup, 0)},
      {"--iterations", number(options.iterations, 1)},
      {"--seconds", [&](const std::string& name, const std::string& value) { options.seconds = not_negative(name, value); }},
  };
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    const auto setter = setters.find(arguments[i]);
    if (setter == setters.end()) throw Failure(Exit::usage, arguments[i] + ": unknown option; " + usage());
    if (i + 1 == arguments.size()) throw Failure(Exit::usage, arguments[i] + ": needs a value; " + usage());
    setter->second(arguments[i], arguments[i + 1]);
  }
  const std::map<std::string, const std::string*> required = {{"--library", &options.library},
                                                              {"--model", &options.model},
                                                              {"--input", &options.input},
                                                              {"--output", &options.output},
                                                              {"--logits", &options.logits}};
  for (const auto& [name, value] : required)
    if (value->empty()) throw Failure(Exit::usage, name + ": missing; " + usage());
  return options;
}
