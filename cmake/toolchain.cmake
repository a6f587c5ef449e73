# Compiler, flags and every library this project uses, found once. docs/decisions/0001 says why clang.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
include(GNUInstallDirs)

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
  message(FATAL_ERROR "The broker needs clang 19 (g++ 12.2 miscompiles coroutines): cmake --preset release")
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
endif()
find_program(LLD ld.lld-19)
if(LLD)
  add_link_options(-fuse-ld=lld-19)
endif()

if(TAILRACE_SANITIZE)
  # No vptr check: Debian's libfmt.so was built by another compiler, and its own objects fail it.
  add_compile_options(-fsanitize=${TAILRACE_SANITIZE} -fno-sanitize-recover=undefined -fno-sanitize=vptr)
  add_link_options(-fsanitize=${TAILRACE_SANITIZE})
  if(TAILRACE_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link)
  endif()
endif()

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(prometheus-cpp REQUIRED)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(isal REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(lz4 REQUIRED IMPORTED_TARGET liblz4)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(rocksdb REQUIRED IMPORTED_TARGET rocksdb)
pkg_check_modules(httplib REQUIRED IMPORTED_TARGET cpp-httplib)
if(TAILRACE_DEVELOPER)
  find_package(GTest REQUIRED)
  find_package(rapidcheck REQUIRED)
  find_package(benchmark REQUIRED)
endif()

add_library(tailrace_warnings INTERFACE)
target_compile_options(tailrace_warnings INTERFACE -Wall -Wextra -Werror -Wnon-virtual-dtor -Wimplicit-fallthrough -Wshadow-uncaptured-local)
add_library(tailrace::warnings ALIAS tailrace_warnings)

# Asio has neither a CMake nor a pkg-config file in Debian 12. With clang it looks for <experimental/coroutine> unless told.
# ASIO_HAS_STD_ALIGNED_ALLOC: Asio finds it out from what was included before it, so that one translation unit would free
# with operator delete what another got from aligned_alloc (AddressSanitizer saw it).
add_library(tailrace_asio INTERFACE)
target_compile_definitions(tailrace_asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED ASIO_HAS_CO_AWAIT=1
  ASIO_HAS_STD_ALIGNED_ALLOC=1 ASIO_SEPARATE_COMPILATION)
target_link_libraries(tailrace_asio INTERFACE Threads::Threads)
add_library(tailrace::asio ALIAS tailrace_asio)

if(TAILRACE_PLANTED_BUGS)
  add_compile_definitions(TAILRACE_PLANTED_BUGS=1)
endif()

# Asio's own code, compiled once per program: the broker's io_asio and the SDK both link this, and one binary holds both.
add_library(tailrace_asio_impl STATIC ${CMAKE_SOURCE_DIR}/cmake/asio_impl.cc)
target_link_libraries(tailrace_asio_impl PUBLIC tailrace::asio)
add_library(tailrace::asio_impl ALIAS tailrace_asio_impl)
