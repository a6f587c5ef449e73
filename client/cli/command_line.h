#pragma once
/// From argv to an exit code.
namespace tailrace::cli {

[[nodiscard]] int run(int argc, char** argv);

}  // namespace tailrace::cli
