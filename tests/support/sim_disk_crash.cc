// The end of a simulated disk: what a power cut leaves of it, what a dead process leaves, and writes that land after the process.
#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "tests/support/sim_disk_parts.h"

namespace tailrace::broker::sim {

DiskImage SimDisk::crash_image(const CrashPlan& plan) const { return image_of(plan, false); }

DiskImage SimDisk::image_of(const CrashPlan& plan, bool process_only) const {
  DiskImage out;
  Random random{plan.seed};
  collect(*root_, "", plan, process_only, random, out);
  out.unreadable = unreadable_;
  std::erase_if(out.unreadable, [&](const auto& entry) { return !out.files.contains(entry.first); });
  return out;
}

void SimDisk::collect(const Node& directory, const std::string& path, const CrashPlan& plan, bool process_only, Random& random,
                      DiskImage& out) const {
  std::map<std::string, NodePtr> names = process_only ? directory.names : directory.durable_names;
  if (!process_only) {
    for (const auto& change : directory.name_changes) {
      bool kept = plan.names == CrashPlan::Changes::all || (plan.names == CrashPlan::Changes::coin && random.chance(1, 2));
      if (!kept) continue;
      if (change.target) {
        names[change.name] = change.target;
      } else {
        names.erase(change.name);
      }
    }
  }
  for (const auto& [name, node] : names) {
    std::string full = path + "/" + name;
    if (node->directory) {
      out.directories.insert(full);
      collect(*node, full, plan, process_only, random, out);
    } else {
      out.files[full] = content_of(*node, full, plan, process_only, random);
    }
  }
}

Content SimDisk::content_of(const Node& node, const std::string& path, const CrashPlan& plan, bool process_only,
                            Random& random) const {
  if (process_only) return node.now;
  Content out = node.durable;
  std::uint64_t size = out.size();
  std::size_t sizes = 0;
  for (const auto& change : node.changes) sizes += change.size ? 1 : 0;
  for (const auto& active : active_) {
    if (active->node.get() == &node && !active->from.empty() && active->position + active->length > node.now.size()) ++sizes;
  }
  std::size_t sizes_kept = plan.sizes == CrashPlan::Changes::all    ? sizes
                           : plan.sizes == CrashPlan::Changes::none ? 0
                                                                    : static_cast<std::size_t>(random.below(sizes + 1));
  auto apply = [&](std::uint64_t position, Bytes bytes, const std::vector<bool>* live, std::uint64_t exact_position,
                   std::uint64_t exact_length, bool in_flight) {
    Fate fate;
    if (plan.fate) fate = plan.fate(UnflushedWrite{path, exact_position, exact_length, in_flight});
    bool block_kept = false;
    for (std::size_t i = 0; i * kSector < bytes.size(); ++i) {
      std::uint64_t at = position + i * kSector;
      if (live && !(*live)[i]) continue;
      Bytes sector = bytes.subspan(i * kSector, std::min(kSector, bytes.size() - i * kSector));
      std::size_t kept = 0;
      switch (fate.keep) {
        case Fate::Keep::none: break;
        case Fate::Keep::all: kept = kSector; break;
        case Fate::Keep::sectors: kept = random.chance(1, 2) ? kSector : 0; break;
        case Fate::Keep::blocks:
          if (i == 0 || at % Content::kPage == 0) block_kept = random.chance(1, 2);
          kept = block_kept ? kSector : 0;
          break;
        case Fate::Keep::prefix: {
          std::uint64_t start = i * kSector;
          kept = fate.value <= start ? 0 : std::min<std::uint64_t>(kSector, fate.value - start);
          break;
        }
        case Fate::Keep::block_mask: kept = (fate.value >> std::min<std::uint64_t>(63, i * kSector / Content::kPage) & 1) != 0 ? kSector : 0; break;
        case Fate::Keep::sector_mask: kept = (fate.value >> std::min<std::size_t>(63, i) & 1) != 0 ? kSector : 0; break;
      }
      kept = std::min(kept, sector.size());
      if (kept > 0) out.write(sector.first(kept), at);
      if (kept < sector.size() && fate.rest != Fate::Rest::old) {
        std::vector<std::byte> rest(sector.size() - kept);
        if (fate.rest == Fate::Rest::noise) {
          for (auto& b : rest) b = static_cast<std::byte>(random.next());
        }
        out.write(rest, at + kept);
      }
    }
  };
  std::size_t index = 0;
  for (const auto& change : node.changes) {
    bool size_kept = change.size && index++ < sizes_kept;
    if (change.bytes.empty()) {
      if (!size_kept) continue;
      out.resize(std::max(out.size(), size));
      out.resize(*change.size);
      size = *change.size;
      continue;
    }
    apply(change.position, change.bytes, &change.live, change.position, change.bytes.size(), false);
    if (size_kept) size = std::max(size, *change.size);
  }
  for (const auto& active : active_) {
    if (active->node.get() != &node || active->from.empty() || active->refused != 0 || active->misdirect) continue;
    Bytes bytes{active->copy.data(), active->length};
    apply(active->position, bytes, nullptr, active->position, active->length, true);
    if (active->position + active->length > node.now.size() && index++ < sizes_kept) {
      size = std::max(size, active->position + active->length);
    }
  }
  out.resize(size);
  return out;
}

void SimDisk::die() {
  dead_ = true;
  for (auto& active : active_) loop_.arm(*active, loop_.now());
}

DiskImage SimDisk::crash(const CrashPlan& plan) {
  DiskImage image = crash_image(plan);
  die();
  return image;
}

DiskImage SimDisk::kill() {
  DiskImage image = visible_image();
  die();
  return image;
}

std::vector<SimDisk::InFlight> SimDisk::writes_in_flight() const {
  std::vector<InFlight> out;
  for (const auto& active : active_) {
    if (active->from.empty() || active->refused != 0) continue;
    InFlight write;
    write.write = {active->path, active->position, active->length, true};
    write.durable = active->kind == DiskOp::write_durable;
    write.bytes.assign(active->copy.begin(), active->copy.begin() + static_cast<std::ptrdiff_t>(active->length));
    out.push_back(std::move(write));
  }
  return out;
}

void SimDisk::land_later(const InFlight& write, Duration after, std::string locked) {
  auto late = std::make_unique<Late>();
  late->disk = this;
  late->write = write;
  late->locked = std::move(locked);
  locks_.insert(late->locked);
  late->fire = [](io::Timer* timer) noexcept {
    auto* self = static_cast<Late*>(timer);
    SimDisk& disk = *self->disk;
    if (NodePtr node = disk.find(self->write.write.path); node && !node->directory) {
      node->now.write(self->write.bytes, self->write.write.position);
      node->durable.write(self->write.bytes, self->write.write.position);
    }
    disk.loop_.note(100, self->write.write.position);
    std::string locked = self->locked;
    std::erase_if(disk.late_, [&](const auto& entry) { return entry.get() == self; });
    if (std::ranges::none_of(disk.late_, [&](const auto& entry) { return entry->locked == locked; })) disk.locks_.erase(locked);
  };
  loop_.arm(*late, loop_.now() + after);
  late_.push_back(std::move(late));
}

}  // namespace tailrace::broker::sim
