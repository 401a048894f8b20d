#include "json.h"

#include "check.h"

int main() {
  CHECK(json::text("a \"b\" \\ \n\x01") == "\"a \\\"b\\\" \\\\ \\u000a\\u0001\"");
  CHECK(json::number(1.5) == "1.500000");
  CHECK(json::numbers({}) == "[]");
  CHECK(json::numbers({0.25, 2}) == "[0.250000, 2.000000]");
  CHECK(json::Object().add("x", "1").add("y", "[]").str() == "{\n  \"x\": 1,\n  \"y\": []\n}\n");
}
