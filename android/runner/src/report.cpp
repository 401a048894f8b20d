#include "report.h"

#include <fstream>

#include "failure.h"
#include "json.h"
#include "measurement.h"
#include "runtime.h"
#include "sha256.h"

namespace {

Tokens read_tokens(const Options& options) {
  const auto count = static_cast<std::size_t>(options.batch * options.length);
  Tokens tokens{options.batch, options.length, std::vector<std::int64_t>(count), std::vector<std::int64_t>(count)};
  std::ifstream stream(options.input, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(count * sizeof(std::int64_t));
  for (auto* part : {&tokens.ids, &tokens.mask}) stream.read(reinterpret_cast<char*>(part->data()), bytes);
  if (!stream || stream.peek() != std::ifstream::traits_type::eof())
    throw Failure(Exit::file, options.input + ": want exactly " + std::to_string(2 * bytes) +
                                  " bytes, int64 input_ids and attention_mask of batch x length");
  return tokens;
}

void write_file(const std::string& path, const char* data, std::size_t size) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(data, static_cast<std::streamsize>(size));
  stream.close();
  if (!stream) throw Failure(Exit::file, path + ": cannot be written; is the device full?");
}

void write_logits(const std::string& path, const Logits& logits) {
  write_file(path, reinterpret_cast<const char*>(logits.values.data()), logits.values.size() * sizeof(float));
}

std::string shape_json(const std::vector<std::int64_t>& shape) {
  std::string written;
  for (const std::int64_t extent : shape) written += (written.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + written + "]";
}

}  // namespace

void measure_and_report(const Options& options) {
  Tokens tokens = read_tokens(options);
  json::Object report;
  report.add("schema_version", std::to_string(kSchemaVersion))
      .add("model_sha256", json::text(file_sha256(options.model)))
      .add("library_sha256", json::text(file_sha256(options.library)));

  Runtime runtime(options.library);
  const std::int64_t before = memory_kib("VmRSS");
  const double load = timed_ms([&] { runtime.load(options.model, static_cast<int>(options.threads)); });
  runtime.bind(tokens);
  const auto run = [&] { runtime.run(); };
  const double cold = timed_ms(run);
  const std::vector<std::int64_t> shape = [&] {
    const Logits logits = runtime.logits();
    write_logits(options.logits, logits);
    return logits.shape;
  }();
  for (std::int64_t i = 0; i < options.warmup; ++i) run();
  const std::vector<double> latencies = repeated_ms(run, options.iterations, options.seconds);

  report.add("ort_version", json::text(runtime.version()))
      .add("threads", std::to_string(options.threads))
      .add("batch", std::to_string(options.batch))
      .add("length", std::to_string(options.length))
      .add("warmup", std::to_string(options.warmup))
      .add("load_ms", json::number(load))
      .add("cold_start_ms", json::number(cold))
      .add("rss_before_load_kib", std::to_string(before))
      .add("vm_hwm_kib", std::to_string(memory_kib("VmHWM")))
      .add("logits_shape", shape_json(shape))
      .add("latencies_ms", json::numbers(latencies));
  const std::string text = report.str();
  write_file(options.output, text.data(), text.size());
}
