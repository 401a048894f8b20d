#include "json.h"

#include <cstdio>

namespace json {

std::string text(const std::string& value) {
  std::string written = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      written += '\\';
      written += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      written += escape;
    } else {
      written += c;
    }
  }
  return written + '"';
}

std::string number(double value) {
  char written[64];
  std::snprintf(written, sizeof written, "%.6f", value);
  return written;
}

std::string numbers(const std::vector<double>& values) {
  std::string written;
  for (const double value : values) written += (written.empty() ? "" : ", ") + number(value);
  return "[" + written + "]";
}

Object& Object::add(const std::string& name, const std::string& value) {
  members_ += (members_.empty() ? "  " : ",\n  ") + text(name) + ": " + value;
  return *this;
}

std::string Object::str() const { return "{\n" + members_ + "\n}\n"; }

}  // namespace json
