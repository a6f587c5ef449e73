#pragma once
/// The fixed header of every native frame. Spec: docs/native-protocol.md, "Frames". Little endian.
///
///   0 u32 length          bytes after this field: 16 + control + payload
///   4 u16 type            FrameType
///   6 u16 flags           0; a receiver ignores bits it does not know
///   8 u64 id              correlation id of a call, or id of a publish or subscribe stream; 0: the connection itself
///  16 u32 control length  bytes of protobuf that follow; the rest of the frame is payload (raw record batches)
#include <cstdint>

#include "base/bytes.h"
#include "base/planted.h"

namespace tailrace::proto {

inline constexpr std::size_t kFrameHeaderBytes = 20;
inline constexpr std::size_t kFrameLengthBytes = 4;
inline constexpr std::uint32_t kFrameLengthMin = kFrameHeaderBytes - kFrameLengthBytes;
inline constexpr std::uint32_t kProtocolMajor = 1;
inline constexpr std::uint32_t kProtocolMinor = 0;

/// A request's reply is its number plus one, or `error`. An unknown type below 0x8000 is answered with an `error`
/// (unsupported), one from 0x8000 on is ignored: optional messages can be added within a major version.
enum class FrameType : std::uint16_t {
  error = 1,
  ping = 2, pong = 3,
  goodbye = 4,                // either side: no new work, then close when all is answered
  hello = 10, hello_reply = 11,
  metadata = 20, metadata_reply = 21,
  create_topic = 22, create_topic_reply = 23,
  alter_topic = 24, alter_topic_reply = 25,
  describe_topic = 26, describe_topic_reply = 27,
  delete_topic = 28, delete_topic_reply = 29,
  delete_records = 30, delete_records_reply = 31,
  list_offsets = 32, list_offsets_reply = 33,
  skip_damage = 34, skip_damage_reply = 35,
  open_producer = 40, open_producer_reply = 41,   // id = the stream it opens
  publish = 42, publish_reply = 43,               // id = that stream; payload: one record batch
  producer_window = 44,                           // broker to client: bytes in flight now allowed
  close_producer = 46, close_producer_reply = 47,
  subscribe = 50, subscribe_reply = 51,           // id = the stream it opens
  records = 52,                                   // broker to client; payload: whole record batches
  credit = 54,                                    // client to broker
  seek = 56, seek_reply = 57,
  unsubscribe = 58, unsubscribe_reply = 59,
  join_group = 60, join_group_reply = 61,
  group_heartbeat = 62, group_heartbeat_reply = 63,
  leave_group = 64, leave_group_reply = 65,
  commit_offsets = 66, commit_offsets_reply = 67,
  stored_offsets = 68, stored_offsets_reply = 69,
  list_groups = 70, list_groups_reply = 71,
  describe_group = 72, describe_group_reply = 73,
  reset_offsets = 74, reset_offsets_reply = 75,
  delete_group = 76, delete_group_reply = 77,
  append_stream = 110, append_stream_reply = 111,  // payload: one record batch
  read_stream = 112, read_stream_reply = 113,      // payload of the reply: whole record batches
  list_streams = 114, list_streams_reply = 115,
  describe_stream = 116, describe_stream_reply = 117,
  truncate_stream = 118, truncate_stream_reply = 119,
};

struct FrameHeader {
  std::uint32_t length = 0;
  FrameType type{};
  std::uint16_t flags = 0;
  std::uint64_t id = 0;
  std::uint32_t control_length = 0;

  [[nodiscard]] std::size_t total_bytes() const { return std::size_t{length} + kFrameLengthBytes; }
  [[nodiscard]] std::size_t payload_bytes() const { return length - kFrameLengthMin - control_length; }
  /// Lengths agree with each other; sizes against limits are the receiver's to judge.
  [[nodiscard]] bool is_consistent() const {
    if (broker::planted(broker::PlantedBug::decoder_length)) return length >= kFrameLengthMin;
    return length >= kFrameLengthMin && control_length <= length - kFrameLengthMin;
  }
};

/// `bytes` holds at least kFrameHeaderBytes.
[[nodiscard]] inline FrameHeader read_frame_header(const std::byte* bytes) {
  using namespace broker;
  return {load_le<std::uint32_t>(bytes), static_cast<FrameType>(load_le<std::uint16_t>(bytes + 4)),
          load_le<std::uint16_t>(bytes + 6), load_le<std::uint64_t>(bytes + 8), load_le<std::uint32_t>(bytes + 16)};
}

inline void write_frame_header(std::byte* to, FrameType type, std::uint64_t id, std::size_t control_bytes, std::size_t payload_bytes) {
  using namespace broker;
  store_le(to, static_cast<std::uint32_t>(kFrameLengthMin + control_bytes + payload_bytes));
  store_le(to + 4, static_cast<std::uint16_t>(type));
  store_le(to + 6, std::uint16_t{0});
  store_le(to + 8, id);
  store_le(to + 16, static_cast<std::uint32_t>(control_bytes));
}

}  // namespace tailrace::proto
