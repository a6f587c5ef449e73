#pragma once
/// What SimDisk keeps of files, names and operations under way. Private to sim_disk.cc and sim_disk_crash.cc.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/sim_disk.h"

namespace tailrace::broker::sim {

/// One change of a file that a crash may lose: sectors, a size, or both.
struct SimDisk::Change {
  std::uint64_t sequence = 0;
  std::uint64_t position = 0;  // of whole sectors
  std::vector<std::byte> bytes;
  std::vector<bool> live;  // per sector: not yet durable and not overwritten by something durable
  std::optional<std::uint64_t> size;  // the size after it, when it changed that
  bool lost = false;                  // its flush failed: no later one makes it durable
};

struct SimDisk::Node {
  explicit Node(bool is_directory) : directory{is_directory} {}
  bool directory;
  Content now, durable;                      // files
  std::vector<Change> changes;               // files, in order of completion
  std::map<std::string, NodePtr> names, durable_names;  // directories
  struct NameChange {
    std::uint64_t sequence;
    std::string name;
    NodePtr target;  // null: removed
    bool lost = false;  // its sync failed: no later one makes it durable
  };
  std::vector<NameChange> name_changes;
};

/// One operation in flight.
struct SimDisk::Active : io::Timer {
  SimDisk* disk = nullptr;
  io::Operation* op = nullptr;
  DiskOp kind{};
  NodePtr node;
  const void* file = nullptr;  // the handle, to notice one closed too early
  std::string path;
  std::uint64_t position = 0;
  std::uint64_t length = 0;
  MutableBytes into;
  Bytes from;
  std::vector<std::byte> copy;
  bool is_direct = false;
  std::int64_t refused = 0;  // an error found at the start
  std::uint64_t started = 0;
  bool fail = false, lie = false, misdirect = false;
  int error = 0;
  std::string to_path;
  std::int64_t shift = 0;
};

struct SimDisk::Late : io::Timer {
  SimDisk* disk = nullptr;
  InFlight write;
  std::string locked;
};

}  // namespace tailrace::broker::sim
