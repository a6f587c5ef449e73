#pragma once
/// Control messages: bounded parsing, and the translation between the service's values and the wire's.
#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "model/ids.h"
#include "proto/native/native.pb.h"
#include "service/broker_service.h"

namespace tailrace::broker::native {

inline constexpr int kRecursionMax = 32;                     // of sub-messages and groups, known or not
inline constexpr std::size_t kConfigEntriesMax = 64;         // in one create or alter
inline constexpr std::size_t kNamesPerRequestMax = 10'000;   // topics, partitions or queries named in one request
inline constexpr std::uint64_t kParsedBytesPerWireByte = 32; // empty sub-messages were seen to grow so much
inline constexpr std::size_t kLargeAnswersMax = 64;          // calls of one connection that wait to be answered at length
inline constexpr std::uint64_t kPublishStreamBytes = 1'152, kReaderBytes = 2'048;  // an open stream; one subscribed partition (1.0 and 1.6 KiB measured)
inline constexpr std::uint64_t kCallBytes = 2 * 1024;        // coroutines and bookkeeping of a call under way

inline constexpr std::size_t kFieldsMax = 3 * kNamesPerRequestMax + 100;  // of a message, each entry of a repeated one counted

/// False: not a message of this type, nested too deep, or of more than kFieldsMax fields: those are counted before anything is
/// allocated for them. `control` is already bounded by the frame's rules.
[[nodiscard]] bool parse(Bytes control, google::protobuf::MessageLite& into);

/// The sentence of the code, with the detail; hint and facts; `ticket` of the publish it answers.
[[nodiscard]] proto::ErrorReply to_wire(const service::Refusal& refusal, std::uint64_t ticket = 0);

/// `leader`: this node, as long as there is one node.
void to_wire(const cluster::Topic& topic, NodeId leader, proto::TopicInfo& out);
void to_wire(const service::TopicDescription& description, NodeId leader, proto::DescribeTopicReply& out);
/// Refusals in it become ListedOffset.error.
void to_wire(PartitionIndex asked, const service::Answer<service::ListedOffset>& answer, proto::ListedOffset& out);

/// Errors: invalid_argument, naming what is too many.
[[nodiscard]] service::Answer<service::CreateTopicRequest> from_wire(proto::CreateTopicRequest&& in);
[[nodiscard]] service::Answer<service::AlterTopicRequest> from_wire(proto::AlterTopicRequest&& in);
[[nodiscard]] service::Answer<service::DeleteRecordsRequest> from_wire(proto::DeleteRecordsRequest&& in);
[[nodiscard]] service::Answer<std::vector<service::ListOffsetsQuery>> from_wire(const proto::ListOffsetsRequest& in);
[[nodiscard]] service::Answer<service::OpenProducerRequest> from_wire(proto::OpenProducerRequest&& in);
/// No start at all means the log start.
[[nodiscard]] service::Position from_wire(const proto::StartAt& in);

}  // namespace tailrace::broker::native
