// SHA-256 (FIPS 180-4), so that the device itself says which model and which runtime it measured.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  std::string hex();  // finishes; the object is used up

 private:
  void compress(const std::uint8_t* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> buffer_{};
  std::size_t buffered_ = 0;
  std::uint64_t bytes_ = 0;
};

// Hex digest of a file's content; Failure if it cannot be read.
std::string file_sha256(const std::string& path);
