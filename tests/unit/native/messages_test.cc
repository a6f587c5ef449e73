#include "native/messages.h"

#include <gtest/gtest.h>

namespace tailrace::broker::native {
namespace {

// A tower of groups costs the sender two bytes a floor and must not cost us our stack.
TEST(Messages, DeepNestingIsRefused) {
  std::string deep(200'000, '\x0b');  // start group, field 1
  proto::Ping ping;
  EXPECT_FALSE(parse(as_bytes(deep), ping));
}

TEST(Messages, UnknownFieldsAreTolerated) {
  proto::Ping ping;
  ping.set_token(7);
  std::string bytes = ping.SerializeAsString() + std::string{"\xfa\x3f\x03xyz", 6};  // field 1023, three bytes
  proto::Ping again;
  ASSERT_TRUE(parse(as_bytes(bytes), again));
  EXPECT_EQ(again.token(), 7u);
}

TEST(Messages, TruncatedMessagesAreRefused) {
  proto::CreateTopicRequest request;
  request.set_name("orders");
  request.set_partitions(300);
  std::string bytes = request.SerializeAsString();
  for (std::size_t size = 1; size < bytes.size(); ++size) {
    proto::CreateTopicRequest again;
    bool cut_between_fields = size == 8;  // after the name: a shorter message, but a message
    EXPECT_EQ(parse(as_bytes(std::string_view{bytes}.substr(0, size)), again), cut_between_fields) << size;
  }
}

// A caller branches on these fields, and a person reads the sentence: both must come with every refusal.
TEST(Messages, ARefusalCarriesItsSentenceDetailHintAndFacts) {
  service::Refusal refusal{Errc::offset_out_of_range, "orders[3] offset 9", {{"log_start", "10"}, {"high_watermark", "20"}}};
  proto::ErrorReply reply = to_wire(refusal, 5);
  EXPECT_EQ(reply.code(), 2040u);
  EXPECT_EQ(reply.message(), "The offset is outside what the partition holds: orders[3] offset 9");
  EXPECT_FALSE(reply.hint().empty());
  ASSERT_EQ(reply.facts_size(), 2);
  EXPECT_EQ(reply.facts(0).name(), "log_start");
  EXPECT_EQ(reply.ticket(), 5u);
  EXPECT_FALSE(reply.retriable());
  EXPECT_TRUE(to_wire({Errc::shutting_down, ""}).retriable());
  EXPECT_EQ(to_wire({Errc::shutting_down, ""}).message(), "The broker is stopping.");
}

TEST(Messages, TooManyEntriesAreRefusedByCount) {
  proto::CreateTopicRequest create;
  for (std::size_t i = 0; i <= kConfigEntriesMax; ++i) create.add_config();
  auto refused = from_wire(std::move(create));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
  proto::ListOffsetsRequest list;
  for (std::size_t i = 0; i <= kNamesPerRequestMax; ++i) list.add_queries();
  EXPECT_FALSE(from_wire(list).has_value());
}

// Empty sub-messages are two bytes on the wire and a hundred in memory: they are counted before they are made.
TEST(Messages, AFloodOfFieldsIsRefusedBeforeItIsParsed) {
  std::string fields;
  for (std::size_t i = 0; i < kFieldsMax; ++i) fields += std::string{"\x1a\x00", 2};
  proto::ListOffsetsRequest request;
  EXPECT_TRUE(parse(as_bytes(fields), request));
  EXPECT_EQ(static_cast<std::size_t>(request.queries_size()), kFieldsMax);
  fields += std::string{"\x1a\x00", 2};
  proto::ListOffsetsRequest untouched;
  EXPECT_FALSE(parse(as_bytes(fields), untouched));
  EXPECT_EQ(untouched.queries_size(), 0);
}

TEST(Messages, ProducerIdentitiesOutOfRangeAreRefused) {
  for (auto [id, epoch] : {std::pair<std::int64_t, std::int32_t>{-1, 0}, {5, -1}, {5, 40'000}}) {
    proto::OpenProducerRequest open;
    open.set_producer_id(id);
    open.set_producer_epoch(epoch);
    EXPECT_FALSE(from_wire(std::move(open)).has_value()) << id << " " << epoch;
  }
  proto::OpenProducerRequest fresh;
  EXPECT_FALSE(from_wire(std::move(fresh))->producer_id.has_value());
}

TEST(Messages, PositionsOnTheWireMeanWhatTheySay) {
  using Kind = service::Position::Kind;
  proto::StartAt at;
  EXPECT_EQ(from_wire(at).kind, Kind::start);
  at.set_offset(17);
  EXPECT_EQ(from_wire(at).kind, Kind::exact);
  EXPECT_EQ(from_wire(at).value, 17);
  at.set_last(~std::uint64_t{0});
  EXPECT_EQ(from_wire(at).kind, Kind::last);
  EXPECT_GT(from_wire(at).value, 0);
  at.set_time_ms(-5);
  EXPECT_EQ(from_wire(at).kind, Kind::time);
  at.set_end(true);
  EXPECT_EQ(from_wire(at).kind, Kind::end);
}

}  // namespace
}  // namespace tailrace::broker::native
