# Cross-compiles for ARM64 Linux with Debian's g++-aarch64-linux-gnu. CMAKE_CROSSCOMPILING_EMULATOR (for example
# "qemu-aarch64-static;-L;/usr/aarch64-linux-gnu") lets ctest run what was built.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
