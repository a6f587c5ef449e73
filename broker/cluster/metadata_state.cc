#include "cluster/metadata_state.h"

#include <fmt/format.h>

#include <limits>

#include "base/crc32c.h"
#include "base/byte_writer.h"
#include "cluster/encoding.h"

namespace tailrace::broker::cluster {
namespace {

constexpr std::uint16_t kStateVersion = 1;

std::unexpected<Error> no_topic(const TopicId& id) {
  return fail(Errc::no_such_topic, fmt::format("no topic has the id {}", id.to_string()));
}

}  // namespace

MetadataState::MetadataState(TopicConfig defaults) : defaults_{std::move(defaults)} {
  auto catalog = std::make_shared<Catalog>();
  insert(*catalog, std::make_shared<Topic>(Topic{.id = kMetadataTopicId, .name = std::string{kMetadataTopicName},
                                                 .partitions = 1, .settings = {}, .config = {}, .internal = true}));
  catalog_ = std::move(catalog);
}

std::shared_ptr<Catalog> MetadataState::copy_of_catalog() const {
  auto copy = std::make_shared<Catalog>(*catalog_);
  ++copy->version;
  return copy;
}

void MetadataState::insert(Catalog& catalog, TopicPointer topic) {
  catalog.by_id[topic->id] = topic;
  catalog.by_name[topic->name] = std::move(topic);
}

// ---- checks -------------------------------------------------------------------------------------------------------------

Result<void> MetadataState::check_one(const CreateTopic& c) const {
  bool internal = is_internal_topic(c.name);
  TAILRACE_TRY_VOID(internal ? check_internal_topic_name(c.name) : check_topic_name(c.name));
  if (c.partitions < 1 || c.partitions > limits::kPartitionsPerTopicMax) {
    return fail(Errc::invalid_argument,
                fmt::format("a topic has 1 to {} partitions, not {}", limits::kPartitionsPerTopicMax, c.partitions));
  }
  TAILRACE_TRY_VOID(effective_config(defaults_, c.settings));
  if (catalog_->find(c.name)) return fail(Errc::topic_exists, fmt::format("topic {}", c.name));
  if (auto clash = clash_keys_.find(topic_clash_key(c.name)); !internal && clash != clash_keys_.end()) {
    auto other = catalog_->find(clash->second);
    return fail(Errc::topic_exists, fmt::format("{} clashes with {}: they differ only in '.' and '_', which metric names cannot tell apart",
                                                c.name, other ? other->name : std::string{}));
  }
  if (c.id == kMetadataTopicId || catalog_->find(c.id) || removing_.contains(c.id)) {
    return fail(Errc::invalid_argument, fmt::format("the topic id {} was used before", c.id.to_string()));
  }
  if (catalog_->by_id.size() >= limits::kTopicsMax) return fail(Errc::too_many, fmt::format("at most {} topics", limits::kTopicsMax));
  if (partitions_total_ + c.partitions > limits::kPartitionsMax) {
    return fail(Errc::too_many, fmt::format("{} partitions exist, at most {} are possible", partitions_total_, limits::kPartitionsMax));
  }
  return {};
}

Result<void> MetadataState::check_one(const AlterTopic& c) const {
  TopicPointer topic = catalog_->find(c.id);
  if (!topic) return no_topic(c.id);
  if (topic->internal) return fail(Errc::unauthorized, fmt::format("{} belongs to the broker", topic->name));
  if (c.partitions != 0) {
    if (c.partitions < topic->partitions) {
      return fail(Errc::invalid_argument, fmt::format("topic {} has {} partitions; the number can grow, not shrink to {}",
                                                      topic->name, topic->partitions, c.partitions));
    }
    if (c.partitions > limits::kPartitionsPerTopicMax) {
      return fail(Errc::invalid_argument, fmt::format("a topic has at most {} partitions, not {}", limits::kPartitionsPerTopicMax, c.partitions));
    }
    auto grown = 1 + static_cast<std::int64_t>(catalog_->beside(topic->name).size());
    if (partitions_total_ + grown * (c.partitions - topic->partitions) > limits::kPartitionsMax) {
      return fail(Errc::too_many, fmt::format("{} partitions exist, at most {} are possible", partitions_total_, limits::kPartitionsMax));
    }
  }
  TopicSettings settings = topic->settings;
  for (TopicKey key : c.unset) {
    if (c.set.contains(key)) return fail(Errc::invalid_argument, fmt::format("{} is both set and unset", info_of(key).name));
    settings.erase(key);
  }
  for (const auto& [key, text] : c.set) settings[key] = text;
  TAILRACE_TRY_VOID(effective_config(defaults_, settings));
  return {};
}

Result<void> MetadataState::check_one(const DeleteTopic& c) const {
  TopicPointer topic = catalog_->find(c.id);
  if (!topic) return no_topic(c.id);
  if (topic->internal) return fail(Errc::unauthorized, fmt::format("{} belongs to the broker", topic->name));
  return {};
}

Result<void> MetadataState::check_one(const TopicRemoved& c) const {
  if (!removing_.contains(c.id)) return no_topic(c.id);
  return {};
}

Result<void> MetadataState::check_one(const AllocateProducerIds& c) const {
  if (c.count < 1 || c.count > limits::kProducerIdBlock) {
    return fail(Errc::invalid_argument, fmt::format("a block has 1 to {} producer ids, not {}", limits::kProducerIdBlock, c.count));
  }
  if (c.first != next_producer_id_) {
    return fail(Errc::invalid_argument, fmt::format("the next free producer id is {}, not {}", next_producer_id_, c.first));
  }
  if (next_producer_id_ > std::numeric_limits<std::int64_t>::max() - c.count) return fail(Errc::too_many, "no producer id is left");
  return {};
}

Result<void> MetadataState::check_one(const SnapshotBegin& c) const {
  if (c.parts == 0 || c.bytes == 0 || c.bytes > kSnapshotBytesMax || c.parts > c.bytes) {
    return fail(Errc::invalid_argument, fmt::format("a metadata snapshot of {} bytes in {} parts is not possible", c.bytes, c.parts));
  }
  return {};
}

Result<void> MetadataState::check_one(const SnapshotPart& c) const {
  if (!loading_ || c.index != loading_->parts || loading_->bytes.size() + c.bytes.size() > loading_->begin.bytes) {
    return fail(Errc::invalid_argument, fmt::format("snapshot part {} follows no snapshot it belongs to", c.index));
  }
  return {};
}

Result<void> MetadataState::check(const Command& command) const {
  return std::visit([&](const auto& c) { return check_one(c); }, command);
}

// ---- application --------------------------------------------------------------------------------------------------------

Result<void> MetadataState::apply_one(const CreateTopic& c) {
  TAILRACE_TRY(TopicConfig config, effective_config(defaults_, c.settings));
  auto catalog = copy_of_catalog();
  bool internal = is_internal_topic(c.name);
  insert(*catalog, std::make_shared<Topic>(Topic{.id = c.id, .name = c.name, .partitions = c.partitions,
                                                 .settings = c.settings, .config = config, .internal = internal}));
  if (!internal) clash_keys_[topic_clash_key(c.name)] = c.id;
  partitions_total_ += c.partitions;
  catalog_ = std::move(catalog);
  return {};
}

Result<void> MetadataState::apply_one(const AlterTopic& c) {
  TopicPointer old = catalog_->find(c.id);
  auto catalog = copy_of_catalog();
  auto topic = std::make_shared<Topic>(*old);
  auto grow = [&](Topic& one) {
    partitions_total_ += c.partitions - one.partitions;
    one.partitions = c.partitions;
  };
  if (c.partitions != 0) {
    grow(*topic);
    for (const TopicPointer& beside : catalog_->beside(old->name)) {
      auto wider = std::make_shared<Topic>(*beside);
      grow(*wider);
      insert(*catalog, std::move(wider));
    }
  }
  for (TopicKey key : c.unset) topic->settings.erase(key);
  for (const auto& [key, text] : c.set) topic->settings[key] = text;
  TAILRACE_TRY(topic->config, effective_config(defaults_, topic->settings));
  insert(*catalog, std::move(topic));
  catalog_ = std::move(catalog);
  return {};
}

Result<void> MetadataState::apply_one(const DeleteTopic& c) {
  TopicPointer topic = catalog_->find(c.id);
  auto catalog = copy_of_catalog();
  auto remove = [&](const Topic& one) {
    catalog->by_name.erase(one.name);
    catalog->by_id.erase(one.id);
    removing_[one.id] = Removing{.name = one.name, .partitions = one.partitions};
    partitions_total_ -= one.partitions;
  };
  // What stands beside it goes with it, in the same step: another topic of that name must not find it.
  for (const TopicPointer& beside : catalog_->beside(topic->name)) remove(*beside);
  clash_keys_.erase(topic_clash_key(topic->name));
  remove(*topic);
  catalog_ = std::move(catalog);
  return {};
}

Result<void> MetadataState::apply_one(const TopicRemoved& c) {
  removing_.erase(c.id);
  return {};
}

Result<void> MetadataState::apply_one(const AllocateProducerIds& c) {
  next_producer_id_ = c.first + c.count;
  return {};
}

Result<void> MetadataState::apply_one(const SnapshotBegin& c) {
  loading_ = Loading{.begin = c, .parts = 0, .bytes = {}};
  return {};
}

Result<void> MetadataState::apply_one(SnapshotPart& c) {
  loading_->bytes.insert(loading_->bytes.end(), c.bytes.begin(), c.bytes.end());
  if (++loading_->parts < loading_->begin.parts) return {};
  Loading whole = std::move(*loading_);
  loading_.reset();
  if (whole.bytes.size() != whole.begin.bytes) {
    return fail(Errc::corrupt, fmt::format("a metadata snapshot has {} bytes instead of {}", whole.bytes.size(), whole.begin.bytes));
  }
  if (crc32c(whole.bytes) != whole.begin.crc) return fail(Errc::corrupt, "a metadata snapshot does not match its checksum");
  TAILRACE_TRY_VOID(load(whole.bytes));
  commands_since_snapshot_ = 0;
  return {};
}

Result<void> MetadataState::apply(Bytes bytes) {
  TAILRACE_TRY(Command command, decode_command(bytes));
  ++commands_since_snapshot_;
  if (!std::holds_alternative<SnapshotPart>(command)) loading_.reset();
  TAILRACE_TRY_VOID(check(command));
  return std::visit([&](auto& c) { return apply_one(c); }, command);
}

// ---- snapshot -----------------------------------------------------------------------------------------------------------

std::vector<std::byte> MetadataState::encoded() const {
  ByteWriter to;
  to.le(kStateVersion).le(next_producer_id_).le(catalog_->version);
  to.le(static_cast<std::uint32_t>(catalog_->by_id.size() - 1));  // without __metadata itself
  for (const auto& [id, topic] : catalog_->by_id) {
    if (id == kMetadataTopicId) continue;
    put_id(to, id);
    to.text(topic->name).le(topic->partitions);
    put_settings(to, topic->settings);
  }
  to.le(static_cast<std::uint32_t>(removing_.size()));
  for (const auto& [id, topic] : removing_) {
    put_id(to, id);
    to.text(topic.name).le(topic.partitions);
  }
  return to.take();
}

std::vector<Command> MetadataState::snapshot() const {
  std::vector<std::byte> bytes = encoded();
  std::vector<Command> commands;
  auto parts = static_cast<std::uint32_t>((bytes.size() + kSnapshotPartBytes - 1) / kSnapshotPartBytes);
  commands.emplace_back(SnapshotBegin{.parts = parts, .bytes = bytes.size(), .crc = crc32c(bytes)});
  for (std::uint32_t i = 0; i < parts; ++i) {
    auto from = bytes.begin() + static_cast<std::ptrdiff_t>(i * kSnapshotPartBytes);
    auto count = std::min<std::ptrdiff_t>(kSnapshotPartBytes, bytes.end() - from);
    commands.emplace_back(SnapshotPart{.index = i, .bytes = {from, from + count}});
  }
  return commands;
}

Result<void> MetadataState::load(Bytes bytes) {
  auto torn = [] { return fail(Errc::corrupt, "a metadata snapshot contradicts itself"); };
  ByteReader from{bytes};
  auto version = from.le<std::uint16_t>();
  if (from.ok() && version != kStateVersion) {
    return fail(Errc::newer_format, fmt::format("metadata snapshot version {}, only {} is known", version, kStateVersion));
  }
  MetadataState fresh{defaults_};
  fresh.next_producer_id_ = from.le<std::int64_t>();
  auto catalog = std::make_shared<Catalog>(*fresh.catalog_);
  catalog->version = from.le<std::uint64_t>();
  auto topics = from.le<std::uint32_t>();
  for (std::uint32_t i = 0; i < topics && from.ok(); ++i) {
    Topic topic{.id = get_id(from), .name = get_text(from), .partitions = 0, .settings = {}, .config = {}, .internal = false};
    topic.partitions = from.le<std::int32_t>();
    TAILRACE_TRY(topic.settings, get_settings(from));
    if (!from.ok()) break;
    CreateTopic same{.id = topic.id, .name = topic.name, .partitions = topic.partitions, .settings = topic.settings};
    fresh.catalog_ = catalog;  // what was loaded so far: names and ids must be new
    if (!fresh.check_one(same)) return torn();
    TAILRACE_TRY(topic.config, effective_config(defaults_, topic.settings));
    topic.internal = is_internal_topic(topic.name);
    if (!topic.internal) fresh.clash_keys_[topic_clash_key(topic.name)] = topic.id;
    fresh.partitions_total_ += topic.partitions;
    insert(*catalog, std::make_shared<Topic>(std::move(topic)));
  }
  auto removing = from.le<std::uint32_t>();
  for (std::uint32_t i = 0; i < removing && from.ok(); ++i) {
    TopicId id = get_id(from);
    Removing topic{.name = get_text(from), .partitions = 0};
    topic.partitions = from.le<std::int32_t>();
    if (!from.ok()) break;
    if (topic.partitions < 1 || topic.partitions > limits::kPartitionsPerTopicMax || catalog->find(id) || fresh.removing_.contains(id)) return torn();
    fresh.removing_[id] = std::move(topic);
  }
  if (!from.ok() || from.remaining() != 0 || fresh.next_producer_id_ < 0) return torn();
  fresh.catalog_ = std::move(catalog);
  *this = std::move(fresh);
  return {};
}

void MetadataState::check_invariants() const {
  TAILRACE_CHECK(catalog_->by_id.size() == catalog_->by_name.size(), "every topic is found by name and by id");
  std::int64_t partitions = 0;
  std::size_t internal = 0;
  for (const auto& [id, topic] : catalog_->by_id) {
    TAILRACE_CHECK(catalog_->find(topic->name) == topic, "name and id lead to the same topic");
    TAILRACE_CHECK(!removing_.contains(id), "a topic is live or being removed, not both");
    if (topic->internal) ++internal;
    if (id != kMetadataTopicId) partitions += topic->partitions;
  }
  TAILRACE_CHECK(clash_keys_.size() + internal == catalog_->by_id.size(), "every live topic of users has a clash key of its own");
  TAILRACE_CHECK(partitions == partitions_total_, "partitions are counted");
  TAILRACE_CHECK(next_producer_id_ >= 0, "producer ids are not negative");
}

}  // namespace tailrace::broker::cluster
