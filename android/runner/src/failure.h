// The one exception of the runner: a line for the user and the exit status that tells the driver what failed.
#pragma once

#include <stdexcept>
#include <string>

enum class Exit : int { ok = 0, usage = 2, library = 3, model = 4, inference = 5, file = 6 };

class Failure : public std::runtime_error {
 public:
  Failure(Exit status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Exit status() const { return status_; }

 private:
  Exit status_;
};
