// As much of JSON as a flat report needs.
#pragma once

#include <string>
#include <vector>

namespace json {

std::string text(const std::string& value);
std::string number(double value);  // finite; six decimals are nanoseconds of a millisecond
std::string numbers(const std::vector<double>& values);

// An object with one member a line, values already written as JSON.
class Object {
 public:
  Object& add(const std::string& name, const std::string& value);
  std::string str() const;

 private:
  std::string members_;
};

}  // namespace json
