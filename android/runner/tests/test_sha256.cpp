// Examples of FIPS 180-4 and the paddings around a block's end (values from coreutils' sha256sum).
#include "sha256.h"

#include <cstdio>
#include <fstream>
#include <string>

#include "check.h"

namespace {

std::string digest(const std::string& text) {
  Sha256 sha;
  sha.update(text.data(), text.size());
  return sha.hex();
}

}  // namespace

int main() {
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(digest(std::string(55, 'a')) == "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  CHECK(digest(std::string(64, 'a')) == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  CHECK(digest(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");

  Sha256 pieces;  // the same in pieces that straddle blocks
  for (int i = 0; i < 1000; ++i) pieces.update(std::string(1000, 'a').data(), 1000);
  CHECK(pieces.hex() == digest(std::string(1000000, 'a')));

  const std::string path = "test_sha256.tmp";
  std::ofstream(path, std::ios::binary) << std::string(1000000, 'a');
  CHECK(file_sha256(path) == digest(std::string(1000000, 'a')));
  std::remove(path.c_str());
  CHECK(status_of([&] { file_sha256(path); }) == Exit::file);
}
