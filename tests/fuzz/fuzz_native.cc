/// A whole connection of the native protocol, without sockets: a client that sends anything, cut anywhere, with pauses, reading
/// or not, against the real front end and service on simulated time and disk. Whatever was sent, once the client is gone
/// nothing of it may run, and no memory may be held.
///
///   input: byte m, then steps. Even m: the hello is sent first and a topic and two streams exist. A step is one byte s and more:
///     s < 200   send the next s * 4 bytes of the input           s < 220   let (s - 199) * 100 ms pass
///     s < 235   the client takes (s - 219) * 500 bytes           s < 245   send a whole frame built from the next bytes
///     s = 245   say goodbye      s = 246   close the client's side      else   nothing
#include <memory>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/native/native_world.h"

namespace tailrace::fuzz {
namespace {

using broker::native::Client;
using broker::native::frame_of;
using broker::native::NativeWorld;
using proto::FrameType;

constexpr unsigned kInputsPerWorld = 500;  // topics and records that inputs leave behind are bounded by this

NativeWorld& world_for_input() {
  static std::unique_ptr<NativeWorld> world;
  static unsigned used = 0;
  if (!world || ++used % kInputsPerWorld == 0) {
    world.reset();
    world = std::make_unique<NativeWorld>();
    Client client{*world};
    client.greet();
    client.create("orders", 2);
    client.close_side();
    world->settle();
  }
  return *world;
}

std::string greeting() {
  proto::Hello hello;
  hello.set_major(1);
  proto::OpenProducerRequest open;
  open.set_topic("orders");
  open.set_not_idempotent(true);
  proto::SubscribeRequest subscribe;
  subscribe.set_topic("orders");
  subscribe.add_partitions();
  subscribe.set_credit_records(10);
  subscribe.set_credit_bytes(10'000);
  return frame_of(FrameType::hello, 0, hello) + frame_of(FrameType::open_producer, 1, open) + frame_of(FrameType::subscribe, 2, subscribe);
}

/// Sends `bytes` in steps of the input's language.
std::string sent(std::string bytes) {
  std::string out;
  bytes.resize((bytes.size() + 3) / 4 * 4, '\0');
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t count = std::min<std::size_t>(bytes.size() - at, 199 * 4);
    out += static_cast<char>(count / 4);
    out += bytes.substr(at, count);
    at += count;
  }
  return out;
}

}  // namespace

std::map<std::string, std::string> seeds() {
  std::map<std::string, std::string> out;
  proto::Hello hello;
  hello.set_major(1);
  std::string raw(1, '\1'), greeted(1, '\0');
  out["hello"] = raw + sent(frame_of(FrameType::hello, 0, hello));
  out["http"] = raw + sent("GET / HTTP/1.1\r\n\r\n");
  out["tls"] = raw + sent(std::string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11});
  proto::Publish publish;
  publish.set_ticket(1);
  std::string batch = broker::native::batch({"value", "another"});
  out["publish"] = greeted + sent(frame_of(FrameType::publish, 1, publish, batch)) + '\xdb';
  out["publish-cut"] = greeted + sent(frame_of(FrameType::publish, 1, publish, batch).substr(0, 60)) + '\xdb' + '\xf6';
  proto::Credit credit;
  credit.set_records(5);
  credit.set_bytes(500);
  proto::SeekRequest seek;
  seek.add_partitions()->mutable_start()->set_start(true);
  seek.add_pause(0);
  out["stream"] = greeted + sent(frame_of(FrameType::credit, 2, credit) + frame_of(FrameType::seek, 2, seek) + frame_of(FrameType::unsubscribe, 2, proto::UnsubscribeRequest{}));
  proto::CreateTopicRequest create;
  create.set_name("t");
  create.set_partitions(1);
  proto::DeleteTopicRequest remove;
  remove.set_name("t");
  out["topics"] = greeted + sent(frame_of(FrameType::create_topic, 3, create) + frame_of(FrameType::metadata, 4, proto::MetadataRequest{}) + frame_of(FrameType::delete_topic, 5, remove));
  proto::ListOffsetsRequest list;
  list.set_topic("orders");
  list.add_queries()->set_time_ms(5);
  out["offsets"] = greeted + sent(frame_of(FrameType::list_offsets, 6, list));
  out["slow"] = greeted + std::string("\xdc\xdb\xdb\xdb", 4) + sent(frame_of(FrameType::publish, 1, publish, batch)) + '\xf5';
  std::string large = frame_of(FrameType::publish, 1, publish, std::string(1'200, 'x'));
  broker::store_le(reinterpret_cast<std::byte*>(large.data()), std::uint32_t{500'000});
  out["large"] = greeted + sent(large);
  return out;
}

}  // namespace tailrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailrace::fuzz;
  using namespace tailrace::broker;
  if (size == 0) return 0;
  static const bool quiet = [] {
    set_log_sink([](LogLevel, std::string_view, std::string_view) {}, LogLevel::error);
    return true;
  }();
  FUZZ_ASSERT(quiet);
  native::NativeWorld& world = world_for_input();
  {
    native::Client client{world};
    ByteReader in{input(data, size)};
    if (in.le<std::uint8_t>() % 2 == 0) {
      client.send(greeting());
      world.settle(1ms);
    }
    while (in.remaining() > 0 && !client.closed()) {
      unsigned step = in.le<std::uint8_t>();
      if (step < 200) {
        Bytes bytes = in.take(std::min<std::size_t>(step * 4, in.remaining()));
        client.send(std::string{as_text(bytes)});
      } else if (step < 220) {
        world.settle((step - 199) * 100ms);
      } else if (step < 235) {
        client.take_at_most((step - 219) * 500);
      } else if (step < 245) {
        auto type = static_cast<tailrace::proto::FrameType>(in.le<std::uint8_t>());
        std::uint64_t id = in.le<std::uint8_t>();
        Bytes control = in.take(std::min<std::size_t>(in.le<std::uint8_t>(), in.remaining()));
        Bytes payload = in.take(std::min<std::size_t>(in.le<std::uint8_t>(), in.remaining()));
        client.send(native::frame_of(type, id, as_text(control), as_text(payload)));
      } else if (step == 245) {
        client.send(native::FrameType::goodbye, 0, tailrace::proto::Goodbye{});
      } else if (step == 246) {
        client.close_side();
      }
      world.settle(100us);
    }
    client.close_side();
    client.take_at_most(1 << 30);
    world.settle(5s);
    FUZZ_ASSERT(client.closed());
  }
  FUZZ_ASSERT(world.front->connections() == 0);
  FUZZ_ASSERT(world.broker.shard().memory().used() == 0);
  FUZZ_ASSERT(world.broker.shard().status().waits_in_flight == 0);
  return 0;
}
