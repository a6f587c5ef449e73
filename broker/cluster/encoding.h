#pragma once
/// Pieces shared by commands and snapshots. Spec: docs/metadata.md.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/byte_writer.h"
#include "cluster/topic_keys.h"
#include "model/ids.h"

namespace tailrace::broker::cluster {

inline void put_id(ByteWriter& to, const TopicId& id) { to.raw(std::as_bytes(std::span{id.bytes})); }
inline TopicId get_id(ByteReader& from) {
  TopicId id;
  Bytes bytes = from.take(id.bytes.size());
  if (bytes.size() == id.bytes.size()) std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}
inline std::string get_text(ByteReader& from) { return std::string{as_text(from.take(from.le<std::uint16_t>()))}; }

inline void put_settings(ByteWriter& to, const TopicSettings& settings) {
  to.le(static_cast<std::uint16_t>(settings.size()));
  for (const auto& [key, text] : settings) to.text(info_of(key).name).text(text);
}
/// A key of ours that this version lacks was written by a newer one.
inline Result<TopicKey> stored_key(std::string_view name) {
  auto key = topic_key_named(name);
  if (!key) return fail(Errc::newer_format, fmt::format("stored topic key \"{}\" is not known to this version", name.substr(0, 100)));
  return *key;
}
inline Result<TopicSettings> get_settings(ByteReader& from) {
  TopicSettings settings;
  auto count = from.le<std::uint16_t>();
  for (std::uint16_t i = 0; i < count && from.ok(); ++i) {
    std::string name = get_text(from);
    std::string text = get_text(from);
    if (!from.ok()) break;
    TAILRACE_TRY(TopicKey key, stored_key(name));
    settings[key] = std::move(text);
  }
  return settings;
}

}  // namespace tailrace::broker::cluster
