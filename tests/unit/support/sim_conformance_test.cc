/// The simulated disk must be a file system like the real ones, or what it proves about the log is about another log.
#include "tests/support/file_system_conformance.h"
#include "tests/support/sim_disk.h"

namespace tailrace::broker::testing_support {
namespace {

class SimWorld final : public FileSystemWorld {
 public:
  [[nodiscard]] io::FileSystem& files() override { return machine_.disk; }
  [[nodiscard]] std::string root() override { return "/data"; }
  void run(Task<void> task) override { EXPECT_TRUE(machine_.loop.run(std::move(task))) << "the story ends"; }

 private:
  static sim::DiskImage with_root() {
    sim::DiskImage image;
    image.directories.insert("/data");
    return image;
  }
  // A finite disk, so that its space can be asked for.
  sim::SimMachine machine_{1, with_root(), {.capacity = std::uint64_t{1} << 30}};
};
std::unique_ptr<FileSystemWorld> make_world() { return std::make_unique<SimWorld>(); }

INSTANTIATE_TEST_SUITE_P(Simulated, FileSystemConformance, testing::Values(&make_world), [](auto&) { return std::string{"simulated"}; });

}  // namespace
}  // namespace tailrace::broker::testing_support
