#include "tests/support/sim_disk.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <cerrno>

#include "base/check.h"
#include "tests/support/sim_disk_parts.h"

namespace tailrace::broker::sim {

std::string_view name_of(DiskOp op) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(DiskOp::count_)> kNames{
      "open", "read", "write", "write_durable", "sync", "allocate", "truncate", "remove", "remove_directory", "rename",
      "make_directory", "sync_directory", "list", "space", "lock"};
  return kNames[static_cast<std::size_t>(op)];
}

class SimFile final : public io::File {
 public:
  SimFile(SimDisk& disk, SimDisk::NodePtr node, std::string path, bool writable, bool direct)
      : disk_{disk}, alive_{disk.alive_}, node_{std::move(node)}, path_{std::move(path)}, writable_{writable}, direct_{direct} {
    ++disk_.open_files_;
  }
  ~SimFile() override {
    if (!*alive_) return;
    --disk_.open_files_;
    for (const auto& active : disk_.active_) {
      if (active->file == this) {
        disk_.violations_.push_back(fmt::format("{} was closed with operations in flight", path_));
        break;
      }
    }
  }
  void read(io::Operation& op, MutableBytes into, std::uint64_t position) override {
    auto active = base(position, into.size());
    active.into = into;
    check_alignment(active, into.data());
    disk_.start(op, DiskOp::read, std::move(active));
  }
  void write(io::Operation& op, Bytes from, std::uint64_t position, io::Durable durable) override {
    auto active = base(position, from.size());
    active.from = from;
    if (!writable_) active.refused = -EBADF;
    check_alignment(active, from.data());
    disk_.start(op, durable == io::Durable::yes ? DiskOp::write_durable : DiskOp::write, std::move(active));
  }
  void sync(io::Operation& op) override { disk_.start(op, DiskOp::sync, base(0, 0)); }
  void allocate(io::Operation& op, std::uint64_t position, std::uint64_t length) override {
    auto active = base(position, length);
    if (!writable_) active.refused = -EBADF;
    disk_.start(op, DiskOp::allocate, std::move(active));
  }
  void truncate(io::Operation& op, std::uint64_t size) override {
    auto active = base(size, 0);
    if (!writable_) active.refused = -EINVAL;
    disk_.start(op, DiskOp::truncate, std::move(active));
  }
  Result<std::uint64_t> size() override {
    if (disk_.dead_) return broker::fail(Errc::io_error, path_ + ": the disk is gone");
    return node_->now.size();
  }

 private:
  friend class SimDisk;
  SimDisk::Active base(std::uint64_t position, std::uint64_t length) {
    SimDisk::Active active;
    active.node = node_;
    active.file = this;
    active.path = path_;
    active.position = position;
    active.length = length;
    active.is_direct = direct_;
    return active;
  }
  void check_alignment(SimDisk::Active& active, const void* address) const {
    if (!direct_) return;
    if (active.position % io::kDirectAlignment != 0 || active.length % io::kDirectAlignment != 0 ||
        reinterpret_cast<std::uintptr_t>(address) % io::kDirectAlignment != 0) {
      active.refused = -EINVAL;
    }
  }
  SimDisk& disk_;
  std::shared_ptr<bool> alive_;
  SimDisk::NodePtr node_;
  std::string path_;
  bool writable_;
  bool direct_;
};

class SimLock final : public io::Lock {
 public:
  SimLock(SimDisk& disk, std::string path) : disk_{disk}, alive_{disk.alive_}, path_{std::move(path)} { disk_.locks_.insert(path_); }
  ~SimLock() override {
    if (*alive_) disk_.locks_.erase(path_);
  }

 private:
  SimDisk& disk_;
  std::shared_ptr<bool> alive_;
  std::string path_;
};

SimDisk::SimDisk(SimLoop& loop, DiskImage image, DiskOptions options)
    : loop_{loop}, options_{options}, random_{loop.stream("disk")}, root_{std::make_shared<Node>(true)} {
  for (const auto& path : image.directories) add_directory(path);
  for (auto& [path, content] : image.files) {
    auto slash = path.rfind('/');
    NodePtr parent = slash == 0 ? root_ : add_directory(path.substr(0, slash));
    auto node = std::make_shared<Node>(false);
    node->now = content;
    node->durable = std::move(content);
    parent->names[path.substr(slash + 1)] = node;
    parent->durable_names[path.substr(slash + 1)] = node;
  }
  unreadable_ = std::move(image.unreadable);
}

SimDisk::~SimDisk() {
  for (auto& active : active_) loop_.disarm(*active);
  for (auto& late : late_) loop_.disarm(*late);
  *alive_ = false;
}

SimDisk::NodePtr SimDisk::add_directory(const std::string& path) {
  NodePtr node = root_;
  std::size_t at = 1;
  while (at < path.size() + 1) {
    std::size_t end = std::min(path.find('/', at), path.size());
    std::string part = path.substr(at, end - at);
    auto& child = node->names[part];
    if (!child) {
      child = std::make_shared<Node>(true);
      node->durable_names[part] = child;
    }
    node = child;
    at = end + 1;
  }
  return node;
}

SimDisk::NodePtr SimDisk::find(std::string_view path) const {
  NodePtr node = root_;
  std::size_t at = 0;
  while (at < path.size()) {
    if (path[at] == '/') {
      ++at;
      continue;
    }
    std::size_t end = std::min(path.find('/', at), path.size());
    if (!node->directory) return nullptr;
    auto found = node->names.find(std::string{path.substr(at, end - at)});
    if (found == node->names.end()) return nullptr;
    node = found->second;
    at = end;
  }
  return node;
}

std::pair<SimDisk::NodePtr, std::string> SimDisk::parent_of(std::string_view path) const {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  auto slash = path.rfind('/');
  if (slash == std::string_view::npos) return {root_, std::string{path}};
  return {find(path.substr(0, slash)), std::string{path.substr(slash + 1)}};
}

Fault& SimDisk::inject(Fault fault) {
  faults_.push_back(std::make_unique<Fault>(std::move(fault)));
  return *faults_.back();
}

void SimDisk::start(io::Operation& op, DiskOp kind, Active prepared) {
  std::unique_ptr<Active> active;
  if (!spare_.empty()) {
    active = std::move(spare_.back());
    spare_.pop_back();
    *active = std::move(prepared);
  } else {
    active = std::make_unique<Active>(std::move(prepared));
  }
  active->disk = this;
  active->op = &op;
  active->kind = kind;
  active->started = ++sequence_;
  active->fire = [](io::Timer* timer) noexcept {
    auto* self = static_cast<Active*>(timer);
    self->disk->finish(*self);
  };
  active->place = io::Timer::kIdle;
  ++counters_.calls[static_cast<std::size_t>(kind)];
  Instant due = loop_.now() + Duration{static_cast<Duration::rep>(random_.between(
                                  static_cast<std::uint64_t>(options_.latency_min.count()),
                                  static_cast<std::uint64_t>(options_.latency_max.count())))};
  if (dead_) due = loop_.now();
  active->copy.assign(active->from.begin(), active->from.end());
  if (on_start && !dead_) on_start(kind, active->path, active->position, active->from);
  for (auto& fault : faults_) {
    if (dead_ || active->refused != 0) break;
    if (fault->op && *fault->op != kind) continue;
    if (!fault->path_part.empty() && active->path.find(fault->path_part) == std::string::npos) continue;
    std::uint64_t number = fault->seen++;
    if (number < fault->after || (number > fault->after && !fault->sticky)) continue;
    ++fault->struck;
    switch (fault->effect) {
      case Fault::Effect::error:
        active->fail = true;
        active->error = fault->error;
        break;
      case Fault::Effect::shorten: {
        std::size_t unit = active->is_direct ? io::kDirectAlignment : 1;
        std::size_t bytes = std::max(unit, fault->bytes / unit * unit);
        if (bytes < active->length) {
          active->length = bytes;
          if (!active->into.empty()) active->into = active->into.first(bytes);
        }
        break;
      }
      case Fault::Effect::stall: due = loop_.now() + fault->stall; break;
      case Fault::Effect::lie: active->lie = true; break;
      case Fault::Effect::misdirect:
        active->misdirect = true;
        active->to_path = fault->to_path;
        active->shift = fault->shift;
        break;
    }
  }
  loop_.arm(*active, due);
  active_.push_back(std::move(active));
}

void SimDisk::finish(Active& active) {
  auto found = std::ranges::find_if(active_, [&](const auto& entry) { return entry.get() == &active; });
  std::unique_ptr<Active> owned = std::move(*found);
  active_.erase(found);
  std::int64_t result = -EIO;
  if (!dead_) {
    if (!owned->from.empty() && std::memcmp(owned->copy.data(), owned->from.data(), owned->copy.size()) != 0) {
      violations_.push_back(fmt::format("the buffer of a write to {} at {} changed while it was in flight", owned->path, owned->position));
      owned->copy.assign(owned->from.begin(), owned->from.end());  // a device may read them as late as this
    }
    // A direct read at or past the end answers 0 before its alignment is looked at, as iomap does.
    bool past_end = owned->kind == DiskOp::read && owned->refused == -EINVAL && owned->position >= owned->node->now.size();
    result = past_end ? 0 : owned->refused != 0 ? owned->refused : perform(*owned);
  }
  ++counters_.completed;
  loop_.note(3 + static_cast<std::uint64_t>(owned->kind), owned->position, static_cast<std::uint64_t>(result));
  if (on_done && !dead_) on_done(owned->kind, owned->path, owned->position, result);
  io::Operation* op = owned->op;
  owned->node.reset();
  spare_.push_back(std::move(owned));
  op->result = result;
  op->complete(op);
}

std::int64_t SimDisk::perform(Active& active) {
  switch (active.kind) {
    case DiskOp::read: {
      if (active.fail) return -active.error;
      NodePtr node = active.node;
      std::uint64_t position = active.position;
      std::string path = active.path;
      if (active.misdirect) {
        if (!active.to_path.empty()) {
          path = active.to_path;
          node = find(path);
        }
        position += static_cast<std::uint64_t>(active.shift);
        if (!node || node->directory) return -EIO;
      }
      std::uint64_t size = node->now.size();
      if (position >= size) return 0;
      std::size_t n = std::min<std::uint64_t>(active.into.size(), size - position);
      if (auto bad = unreadable_.find(path); bad != unreadable_.end()) {
        auto first = bad->second.lower_bound(position / kSector);
        if (first != bad->second.end() && *first * kSector < position + n) return -EIO;
      }
      node->now.read(active.into.first(n), position);
      return static_cast<std::int64_t>(n);
    }
    case DiskOp::write:
    case DiskOp::write_durable: return perform_write(active);
    case DiskOp::sync:
      if (active.fail) {
        for (auto& change : active.node->changes) change.lost = true;
        return -active.error;
      }
      if (!active.lie) perform_sync(*active.node, active.started);
      return 0;
    case DiskOp::allocate:
      if (active.fail) return -active.error;
      return resize(active, std::max(active.node->now.size(), active.position + active.length));
    case DiskOp::truncate:
      if (active.fail) return -active.error;
      return resize(active, active.position);
    default: return active.fail ? -active.error : 0;
  }
}

std::int64_t SimDisk::resize(Active& active, std::uint64_t size) {
  Node& node = *active.node;
  if (size == node.now.size()) return 0;
  if (size > node.now.size() && used_bytes() + (size - node.now.size()) > options_.capacity) return -ENOSPC;
  node.now.resize(size);
  Change change;
  change.sequence = ++sequence_;
  change.size = size;
  node.changes.push_back(std::move(change));
  return 0;
}

std::int64_t SimDisk::perform_write(Active& active) {
  NodePtr node = active.node;
  std::uint64_t position = active.position;
  if (active.misdirect) {
    if (!active.to_path.empty()) node = find(active.to_path);
    if (!node || node->directory) node = active.node;
    position += static_cast<std::uint64_t>(active.shift);
  }
  std::size_t length = active.length;
  std::uint64_t end = position + length;
  bool grows = end > node->now.size();
  if (grows && used_bytes() + (end - node->now.size()) > options_.capacity) return -ENOSPC;
  if (active.fail) {
    if (active.error == ENOSPC || active.error == EDQUOT || active.error == EINTR || active.error == EAGAIN || active.error == ECANCELED) {
      return -active.error;
    }
    length = static_cast<std::size_t>(random_.below(length / kSector + 1)) * kSector;
    if (length == 0) return -active.error;
    end = position + length;
    grows = end > node->now.size();
  }
  Bytes data{active.copy.data(), length};
  counters_.bytes_written += length;
  node->now.write(data, position);
  Change change;
  change.sequence = ++sequence_;
  change.position = position / kSector * kSector;
  std::uint64_t whole_end = (end + kSector - 1) / kSector * kSector;
  change.bytes = node->now.bytes(change.position, whole_end - change.position);
  change.live.assign(change.bytes.size() / kSector, true);
  if (grows) change.size = end;
  change.lost = active.fail;
  bool durable = (active.kind == DiskOp::write_durable && !active.lie && !active.fail);
  if (durable) {
    for (auto& earlier : node->changes) {  // the journal keeps size changes in order
      if (!earlier.size || earlier.lost) continue;
      Change sized;
      sized.sequence = earlier.sequence;
      sized.size = std::exchange(earlier.size, std::nullopt);
      make_durable(*node, sized);
    }
    make_durable(*node, change);
    std::erase_if(node->changes, [](const Change& c) { return !c.size && std::ranges::none_of(c.live, [](bool b) { return b; }); });
  } else {
    node->changes.push_back(std::move(change));
  }
  return active.fail ? -active.error : static_cast<std::int64_t>(length);
}

void SimDisk::make_durable(Node& node, Change& change) {
  if (change.size && *change.size < node.durable.size()) {
    for (auto& earlier : node.changes) {
      if (earlier.sequence >= change.sequence) continue;
      for (std::size_t i = 0; i < earlier.live.size(); ++i) {
        if (earlier.position + i * kSector >= *change.size) earlier.live[i] = false;
      }
    }
  }
  bool exact = change.bytes.empty();
  if (change.size) {
    // An inode has one size: an earlier change of it, lost or not, does not come back behind a later one that is durable.
    for (auto& earlier : node.changes) {
      if (earlier.sequence >= change.sequence || !earlier.size) continue;
      exact = exact || earlier.bytes.empty();
      earlier.size.reset();
    }
  }
  std::uint64_t size = node.durable.size();
  if (change.size) size = exact ? *change.size : std::max(size, *change.size);
  for (std::size_t i = 0; i < change.live.size(); ++i) {
    if (!change.live[i]) continue;
    std::uint64_t at = change.position + i * kSector;
    node.durable.write(Bytes{change.bytes}.subspan(i * kSector, kSector), at);
    for (auto& earlier : node.changes) {
      if (earlier.sequence >= change.sequence || at < earlier.position) continue;
      std::uint64_t index = (at - earlier.position) / kSector;
      if (index < earlier.live.size()) earlier.live[index] = false;
    }
  }
  node.durable.resize(size);
}

void SimDisk::perform_sync(Node& node, std::uint64_t started) {
  std::vector<Change> changes = std::move(node.changes);
  node.changes.clear();
  for (auto& change : changes) {
    // What stays is in node.changes by then: what is durable wins over what was lost in front of it.
    if (change.sequence < started && !change.lost) {
      make_durable(node, change);
    } else {
      node.changes.push_back(std::move(change));
    }
  }
}

void SimDisk::change_name(const NodePtr& directory, const std::string& name, NodePtr target) {
  if (target) {
    directory->names[name] = target;
  } else {
    directory->names.erase(name);
  }
  directory->name_changes.push_back({++sequence_, name, std::move(target), false});
}

std::uint64_t SimDisk::size_of_tree(const Node& node) {
  std::uint64_t sum = (node.now.size() + Content::kPage - 1) / Content::kPage * Content::kPage;
  for (const auto& [name, child] : node.names) sum += size_of_tree(*child);
  return sum;
}

std::uint64_t SimDisk::used_bytes() const {
  if (options_.capacity >= DiskOptions{}.capacity) return 0;  // unlimited: not worth the walk
  return size_of_tree(*root_);
}

Task<std::int64_t> SimDisk::name_op(DiskOp kind, const std::string& path) {
  co_return co_await io::FileOp{[&](io::Operation& op) {
    Active active;
    active.path = path;
    start(op, kind, std::move(active));
  }};
}

Task<Result<std::unique_ptr<io::File>>> SimDisk::open(std::string path, io::OpenOptions options) {
  std::int64_t result = co_await name_op(DiskOp::open, path);
  if (result < 0) co_return std::unexpected(io::error_of(result, "open " + path));
  if (open_files_ >= options_.descriptors_max) co_return std::unexpected(io::error_of(-EMFILE, "open " + path));
  NodePtr node = find(path);
  if (node && options.create && options.exclusive) co_return std::unexpected(io::error_of(-EEXIST, "open " + path));
  if (node && node->directory) co_return std::unexpected(io::error_of(-EISDIR, "open " + path));
  if (!node) {
    auto [parent, name] = parent_of(path);
    if (!options.create || !parent || !parent->directory) co_return std::unexpected(io::error_of(-ENOENT, "open " + path));
    node = std::make_shared<Node>(false);
    change_name(parent, name, node);
  }
  co_return std::make_unique<SimFile>(*this, std::move(node), std::move(path), options.write, options.direct);
}

Task<Result<void>> SimDisk::remove(std::string path) {
  std::int64_t result = co_await name_op(DiskOp::remove, path);
  NodePtr node = result == 0 ? find(path) : nullptr;
  if (result == 0 && !node) result = -ENOENT;
  if (result == 0 && node->directory) result = -EISDIR;
  if (result < 0) co_return std::unexpected(io::error_of(result, "remove " + path));
  auto [parent, name] = parent_of(path);
  change_name(parent, name, nullptr);
  unreadable_.erase(path);
  co_return Result<void>{};
}

Task<Result<void>> SimDisk::remove_directory(std::string path) {
  std::int64_t result = co_await name_op(DiskOp::remove_directory, path);
  NodePtr node = result == 0 ? find(path) : nullptr;
  if (result == 0 && !node) result = -ENOENT;
  if (result == 0 && !node->directory) result = -ENOTDIR;
  if (result == 0 && !node->names.empty()) result = -ENOTEMPTY;
  if (result < 0) co_return std::unexpected(io::error_of(result, "remove directory " + path));
  auto [parent, name] = parent_of(path);
  change_name(parent, name, nullptr);
  co_return Result<void>{};
}

Task<Result<void>> SimDisk::rename(std::string from, std::string to) {
  std::int64_t result = co_await name_op(DiskOp::rename, from);
  NodePtr node = result == 0 ? find(from) : nullptr;
  auto [to_parent, to_name] = parent_of(to);
  if (result == 0 && (!node || !to_parent)) result = -ENOENT;
  if (result < 0) co_return std::unexpected(io::error_of(result, "rename " + from));
  auto [from_parent, from_name] = parent_of(from);
  change_name(to_parent, to_name, node);
  change_name(from_parent, from_name, nullptr);
  co_return Result<void>{};
}

Task<Result<void>> SimDisk::make_directory(std::string path) {
  std::int64_t result = co_await name_op(DiskOp::make_directory, path);
  auto [parent, name] = parent_of(path);
  if (result == 0 && (!parent || !parent->directory)) result = -ENOENT;
  NodePtr node = result == 0 ? find(path) : nullptr;
  if (node && !node->directory) result = -EEXIST;
  if (result < 0) co_return std::unexpected(io::error_of(result, "make directory " + path));
  if (!node) change_name(parent, name, std::make_shared<Node>(true));
  co_return Result<void>{};
}

Task<Result<void>> SimDisk::sync_directory(std::string path) {
  NodePtr before = find(path);
  std::uint64_t started = sequence_;
  std::int64_t result = co_await name_op(DiskOp::sync_directory, path);
  if (result == 0 && (!before || !before->directory)) result = -ENOENT;
  if (result < 0) {
    if (before && !dead_) {
      for (auto& change : before->name_changes) change.lost = true;
    }
    co_return std::unexpected(io::error_of(result, "sync directory " + path));
  }
  std::vector<Node::NameChange> rest;
  for (auto& change : before->name_changes) {
    if (change.sequence > started || change.lost) {
      rest.push_back(std::move(change));
      continue;
    }
    std::erase_if(rest, [&](const auto& earlier) { return earlier.name == change.name; });  // lost, and made up for
    if (change.target) before->durable_names[change.name] = change.target;
    else before->durable_names.erase(change.name);
  }
  before->name_changes = std::move(rest);
  co_return Result<void>{};
}

Task<Result<std::vector<io::DirectoryEntry>>> SimDisk::list(std::string path) {
  std::int64_t result = co_await name_op(DiskOp::list, path);
  NodePtr node = result == 0 ? find(path) : nullptr;
  if (result == 0 && (!node || !node->directory)) result = -ENOENT;
  if (result < 0) co_return std::unexpected(io::error_of(result, "list " + path));
  std::vector<io::DirectoryEntry> out;
  for (const auto& [name, child] : node->names) out.push_back({name, child->directory, child->now.size()});
  co_return out;
}

Task<Result<io::Space>> SimDisk::space(std::string path) {
  std::int64_t result = co_await name_op(DiskOp::space, path);
  if (result < 0) co_return std::unexpected(io::error_of(result, "space " + path));
  std::uint64_t used = used_bytes();
  co_return io::Space{options_.capacity, used < options_.capacity ? options_.capacity - used : 0};
}

Task<Result<std::unique_ptr<io::Lock>>> SimDisk::lock(std::string path) {
  std::int64_t result = co_await name_op(DiskOp::lock, path);
  if (result == 0 && !find(path)) result = -ENOENT;
  if (result < 0) co_return std::unexpected(io::error_of(result, "lock " + path));
  if (locks_.contains(path)) co_return broker::fail(Errc::data_directory_locked, path);
  co_return std::make_unique<SimLock>(*this, std::move(path));
}

}  // namespace tailrace::broker::sim
