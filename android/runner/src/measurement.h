// The clock, the rule that ends a measurement, and resident memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

// Milliseconds of a monotonic clock.
double now_ms();

// Milliseconds that a call takes.
double timed_ms(const std::function<void()>& run, const std::function<double()>& clock = now_ms);

// Milliseconds of every call until `iterations` calls, at least one, are done and took `seconds` together.
std::vector<double> repeated_ms(const std::function<void()>& run, std::int64_t iterations, double seconds,
                                const std::function<double()>& clock = now_ms);

// A field of /proc/self/status in KiB, such as VmHWM (the highest resident memory so far) or VmRSS; see proc(5).
std::int64_t memory_kib(const std::string& field, const std::string& path = "/proc/self/status");
