#include "measurement.h"

#include <cstdio>
#include <fstream>

#include "check.h"

int main() {
  double time = 0;  // a clock that only the runs advance
  const auto clock = [&] { return time; };
  const auto takes = [&](double ms) { return [&time, ms] { time += ms; }; };

  CHECK(timed_ms(takes(3), clock) == 3);
  CHECK(repeated_ms(takes(1000), 5, 2, clock) == std::vector<double>(5, 1000));  // the runs come last
  CHECK(repeated_ms(takes(250), 3, 1, clock) == std::vector<double>(4, 250));    // the seconds come last
  CHECK(repeated_ms(takes(1), 1, 0, clock).size() == 1);
  const double earlier = now_ms();
  CHECK(now_ms() >= earlier);

  CHECK(memory_kib("VmHWM") > 0);
  const std::string path = "test_measurement.tmp";
  std::ofstream(path) << "VmHWMs:\t1 kB\nVmHWM:\t    1234 kB\n";
  CHECK(memory_kib("VmHWM", path) == 1234);
  CHECK(status_of([&] { memory_kib("VmRSS", path); }) == Exit::file);
  std::remove(path.c_str());
}
