#include "measurement.h"

#include <chrono>
#include <fstream>

#include "failure.h"

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double timed_ms(const std::function<void()>& run, const std::function<double()>& clock) {
  const double start = clock();
  run();
  return clock() - start;
}

std::vector<double> repeated_ms(const std::function<void()>& run, std::int64_t iterations, double seconds,
                                const std::function<double()>& clock) {
  std::vector<double> found;
  double total = 0;
  do {
    found.push_back(timed_ms(run, clock));
    total += found.back();
  } while (static_cast<std::int64_t>(found.size()) < iterations || total < 1000 * seconds);
  return found;
}

std::int64_t memory_kib(const std::string& field, const std::string& path) {
  std::ifstream status(path);
  for (std::string line; std::getline(status, line);)
    if (line.compare(0, field.size() + 1, field + ":") == 0) return std::stoll(line.substr(field.size() + 1));
  throw Failure(Exit::file, path + ": no line " + field);
}
